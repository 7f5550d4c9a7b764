#include <QBuffer>
#include <QFileDialog>
#include <QFileInfo>
#include <QMessageBox>
#include <QSaveFile>
#include <QSettings>
#include <QSvgGenerator>

#include "core/base/error.h"
#include "views/plots/Plot.h"

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

void Plot::save(const QString& path) {
  const QString suffix = QFileInfo(path).suffix().toLower();
  const QSize size(std::max(320, width()), std::max(200, height()));
  QByteArray bytes;
  QBuffer buffer(&bytes);
  buffer.open(QIODevice::WriteOnly);
  if (suffix == QLatin1String("png")) {
    image(2).save(&buffer, "PNG");
  } else if (suffix == QLatin1String("csv")) {
    bytes = toCsv(table()).toUtf8();
  } else if (suffix == QLatin1String("svg")) {
    QSvgGenerator generator;
    generator.setOutputDevice(&buffer);
    generator.setSize(size);
    generator.setViewBox(QRect(QPoint(0, 0), size));
    generator.setTitle(title());
    generator.setDescription(conditions());
    QCPPainter painter;
    painter.begin(&generator);
    painter.setMode(QCPPainter::pmVectorized);
    painter.setMode(QCPPainter::pmNoCaching);
    painter.fillRect(QRect(QPoint(0, 0), size), m_colours.background);
    toPainter(&painter, size.width(), size.height());
    painter.end();
  } else if (suffix == QLatin1String("pdf")) {
    if (!savePdf(path, size.width(), size.height(), QCP::epAllowCosmetic, QStringLiteral("LLM-QBench Workbench"), title()))
      throw ResourceError(tr("%1: cannot be written").arg(path).toStdString());
    return;
  } else {
    throw InputError(tr("%1: unknown kind of file \"%2\", expected png, svg, pdf or csv").arg(path, suffix).toStdString());
  }
  QSaveFile file(path);
  if (!file.open(QIODevice::WriteOnly) || file.write(bytes) != bytes.size() || !file.commit())
    throw ResourceError(tr("%1: cannot be written: %2").arg(path, file.errorString()).toStdString());
}

void Plot::exportWithDialog() {
  QSettings settings;
  const QString key = QStringLiteral("plots/exportFolder");
  QString name = title().simplified().toLower();
  name.replace(QRegularExpression(QStringLiteral("[^\\w\\-]+"), QRegularExpression::UseUnicodePropertiesOption), QStringLiteral("-"));
  auto* dialog = new QFileDialog(this, tr("Export"), settings.value(key).toString());
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setAcceptMode(QFileDialog::AcceptSave);
  dialog->setNameFilters({tr("PNG picture (*.png)"), tr("SVG picture (*.svg)"), tr("PDF document (*.pdf)"), tr("Numbers as CSV (*.csv)")});
  dialog->setDefaultSuffix(QStringLiteral("png"));
  connect(dialog, &QFileDialog::filterSelected, dialog, [dialog](const QString& filter) {
    dialog->setDefaultSuffix(filter.section(QLatin1String("*."), 1).chopped(1));
  });
  dialog->selectFile(name);
  connect(dialog, &QFileDialog::fileSelected, this, [this, key](const QString& path) {
    try {
      save(path);
      QSettings().setValue(key, QFileInfo(path).path());
    } catch (const Error& error) {
      auto* box = new QMessageBox(QMessageBox::Warning, tr("Export"), QString::fromUtf8(error.what()), QMessageBox::Ok, this);
      box->setAttribute(Qt::WA_DeleteOnClose);
      box->open();
    }
  });
  dialog->open();
}

}  // namespace qb::views
