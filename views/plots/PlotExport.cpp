#include <QBuffer>
#include <QFileInfo>
#include <QPdfWriter>
#include <QSaveFile>
#include <QSvgGenerator>

#include "core/base/error.h"
#include "views/Theme.h"
#include "views/plots/PictureDialog.h"

namespace qb::views {
namespace {

QString field(const QVariant& value) {
  if (value.isNull()) return {};
  if (value.userType() == QMetaType::Double) {
    const double number = value.toDouble();
    return std::isfinite(number) ? QString::number(number, 'g', QLocale::FloatingPointShortest) : QString();
  }
  QString text = value.toString();
  if (!text.contains(QLatin1Char(',')) && !text.contains(QLatin1Char('"')) && !text.contains(QLatin1Char('\n')) && !text.contains(QLatin1Char('\r')))
    return text;
  return QLatin1Char('"') + text.replace(QLatin1Char('"'), QLatin1String("\"\"")) + QLatin1Char('"');
}

}  // namespace

QString toCsv(const PlotTable& table) {
  QString text;
  const auto line = [&text](const QStringList& fields) { text += fields.join(QLatin1Char(',')) + QLatin1String("\r\n"); };
  QStringList fields;
  for (const QString& header : table.headers) fields.push_back(field(header));
  line(fields);
  for (const auto& row : table.rows) {
    fields.clear();
    for (const QVariant& value : row) fields.push_back(field(value));
    line(fields);
  }
  return text;
}

QImage Plot::image(double scale) { return toPixmap(std::max(320, width()), std::max(200, height()), scale).toImage(); }

QSizeF PictureSettings::millimetres() const { return QSizeF(width, height) * (pixels ? 25.4 / dpi : 1); }

QSize PictureSettings::pixelSize() const { return (QSizeF(width, height) * (pixels ? 1 : dpi / 25.4)).toSize(); }

QString PictureSettings::problem() const {
  const QSizeF paper = millimetres();
  if (paper.width() < 40 || paper.height() < 25)
    return Plot::tr("%1 × %2 mm have no room for axes and text; at least 40 × 25 mm").arg(QLocale().toString(paper.width(), 'f', 1), QLocale().toString(paper.height(), 'f', 1));
  const QSize points = pixelSize();
  if (format == QLatin1String("png") && double(points.width()) * points.height() > 1e8)
    return Plot::tr("%1 × %2 pixels are too many; at most 100 million").arg(points.width()).arg(points.height());
  return {};
}

// Lays the picture out for another size and look, draws it, and lays it out for the window again.
void Plot::drawAs(const QSize& size, PictureLook look, const std::function<void()>& draw) {
  const QRect window = viewport();
  const PlotColours own = m_colours;
  const auto layOut = [this](const QRect& area, const PlotColours& colours) {
    setViewport(area);
    m_colours = colours;
    rebuild();
    restyle(colours);
    updateLayout();
    arrange();
    updateLayout();  // names may have become shorter
    arrange();
  };
  layOut(QRect(QPoint(0, 0), size), look == PictureLook::AsShown ? own : plotColours(Theme::palette(look == PictureLook::Dark)));
  if (m_pages.pages() > 1) m_caption->setNote(m_pages.text(), 0);  // no buttons beside it
  draw();
  layOut(window, own);
  m_stale = true;
  update();
}

QImage Plot::picture(const PictureSettings& settings, const QSize& within) {
  QSize size = settings.pixelSize();
  const QSize drawn = (settings.millimetres() * (logicalDpiX() / 25.4)).toSize();  // in the window's pixels
  if (within.isValid()) size = QSizeF(drawn).scaled(within, Qt::KeepAspectRatio).toSize();
  QPixmap pixmap(size);
  drawAs(drawn, settings.look, [&] {
    pixmap.fill(m_colours.background);
    QCPPainter painter(&pixmap);
    painter.setMode(QCPPainter::pmNoCaching);
    painter.setMode(QCPPainter::pmNonCosmetic, size.width() > drawn.width());
    painter.scale(double(size.width()) / drawn.width(), double(size.height()) / drawn.height());
    toPainter(&painter, drawn.width(), drawn.height());
  });
  return pixmap.toImage();
}

// In vectors, to a device whose pixels are the window's.
static void drawVectors(QCustomPlot& plot, QPaintDevice& device, const QSize& size, const QColor& background) {
  QCPPainter painter;
  painter.begin(&device);
  painter.setMode(QCPPainter::pmVectorized);
  painter.setMode(QCPPainter::pmNoCaching);
  painter.fillRect(QRect(QPoint(0, 0), size), background);
  plot.toPainter(&painter, size.width(), size.height());
  painter.end();
}

void Plot::save(const QString& path, const PictureSettings& settings) {
  QByteArray bytes;
  QBuffer buffer(&bytes);
  buffer.open(QIODevice::WriteOnly);
  const QSizeF paper = settings.millimetres();
  const QSize drawn = (paper * (logicalDpiX() / 25.4)).toSize();
  if (settings.format == QLatin1String("csv")) {
    bytes = toCsv(table()).toUtf8();
  } else if (const QString problem = settings.problem(); !problem.isEmpty()) {
    throw InputError(tr("%1: %2").arg(path, problem).toStdString());
  } else if (settings.format == QLatin1String("png")) {
    QImage image = picture(settings);
    image.setDotsPerMeterX(qRound(settings.dpi / 0.0254));
    image.setDotsPerMeterY(qRound(settings.dpi / 0.0254));
    image.save(&buffer, "PNG");
  } else if (settings.format == QLatin1String("svg")) {
    QSvgGenerator generator;
    generator.setOutputDevice(&buffer);
    generator.setResolution(logicalDpiX());
    generator.setSize(drawn);
    generator.setViewBox(QRect(QPoint(0, 0), drawn));
    generator.setTitle(title());
    generator.setDescription(conditions());
    drawAs(drawn, settings.look, [&] { drawVectors(*this, generator, drawn, m_colours.background); });
  } else if (settings.format == QLatin1String("pdf")) {
    QPdfWriter writer(&buffer);
    writer.setCreator(QStringLiteral("LLM-QBench Workbench"));
    writer.setTitle(title());
    writer.setResolution(logicalDpiX());
    writer.setPageSize(QPageSize(paper, QPageSize::Millimeter, {}, QPageSize::ExactMatch));
    writer.setPageMargins({});
    drawAs(drawn, settings.look, [&] { drawVectors(*this, writer, drawn, m_colours.background); });
  } else {
    throw InputError(tr("%1: unknown kind of file \"%2\", expected png, svg, pdf or csv").arg(path, settings.format).toStdString());
  }
  write(path, bytes);
}

// As large as on screen, a png with twice the pixels.
void Plot::save(const QString& path) {
  PictureSettings settings;
  settings.format = QFileInfo(path).suffix().toLower();
  settings.pixels = true;
  settings.dpi = 2 * logicalDpiX();
  settings.width = 2 * std::max(320, width());
  settings.height = 2 * std::max(200, height());
  save(path, settings);
}

void Plot::write(const QString& path, const QByteArray& bytes) const {
  QSaveFile file(path);
  if (!file.open(QIODevice::WriteOnly) || file.write(bytes) != bytes.size() || !file.commit())
    throw ResourceError(tr("%1: cannot be written: %2").arg(path, file.errorString()).toStdString());
}

void Plot::exportWithDialog() {
  auto* dialog = new PictureDialog(this, this);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->open();
}

}  // namespace qb::views
