#include "views/plots/PictureDialog.h"

#include <QComboBox>
#include <QDialogButtonBox>
#include <QDoubleSpinBox>
#include <QFileDialog>
#include <QFormLayout>
#include <QLabel>
#include <QMessageBox>
#include <QPushButton>
#include <QRegularExpression>
#include <QSettings>
#include <QSpinBox>
#include <QTimer>

#include "core/base/error.h"

namespace qb::views {
namespace {
constexpr QSize kPreview(380, 260);
constexpr double kMillimetres = 25.4;  // in an inch

PictureSettings remembered() {
  QSettings store;
  store.beginGroup(QStringLiteral("plots/picture"));
  PictureSettings settings;
  settings.format = store.value("format", settings.format).toString();
  settings.pixels = store.value("pixels", settings.pixels).toBool();
  settings.width = store.value("width", settings.width).toDouble();
  settings.height = store.value("height", settings.height).toDouble();
  settings.dpi = store.value("dpi", settings.dpi).toInt();
  settings.look = PictureLook(std::clamp(store.value("look", 0).toInt(), 0, 2));
  return settings;
}

void remember(const PictureSettings& settings) {
  QSettings store;
  store.beginGroup(QStringLiteral("plots/picture"));
  store.setValue("format", settings.format);
  store.setValue("pixels", settings.pixels);
  store.setValue("width", settings.width);
  store.setValue("height", settings.height);
  store.setValue("dpi", settings.dpi);
  store.setValue("look", int(settings.look));
}
}  // namespace

PictureDialog::PictureDialog(Plot* plot, QWidget* parent)
    : QDialog(parent),
      m_plot(plot),
      m_format(new QComboBox),
      m_unit(new QComboBox),
      m_look(new QComboBox),
      m_width(new QDoubleSpinBox),
      m_height(new QDoubleSpinBox),
      m_dpi(new QSpinBox),
      m_result(new QLabel),
      m_preview(new QLabel),
      m_buttons(new QDialogButtonBox(QDialogButtonBox::Save | QDialogButtonBox::Cancel)),
      m_timer(new QTimer(this)) {
  setWindowTitle(tr("Export picture or data"));
  m_format->addItem(tr("PNG picture"), QStringLiteral("png"));
  m_format->addItem(tr("SVG picture"), QStringLiteral("svg"));
  m_format->addItem(tr("PDF document"), QStringLiteral("pdf"));
  m_format->addItem(tr("Numbers as CSV"), QStringLiteral("csv"));
  m_unit->addItems({tr("millimetres"), tr("pixels")});
  m_look->addItems({tr("As shown"), tr("Light"), tr("Dark")});
  m_dpi->setRange(50, 1200);
  m_dpi->setSuffix(tr(" dpi"));
  m_dpi->setToolTip(tr("Pixels per inch: how large text and lines are in pixels"));
  const QPair<QWidget*, QString> names[] = {{m_format, tr("Format")}, {m_unit, tr("Unit of width and height")}, {m_look, tr("Colours")},
                                            {m_width, tr("Width")},   {m_height, tr("Height")},                 {m_dpi, tr("Resolution")}};
  for (const auto& [widget, name] : names) widget->setAccessibleName(name);

  auto* form = new QFormLayout;
  auto* size = new QHBoxLayout;
  size->addWidget(m_width);
  size->addWidget(new QLabel(QStringLiteral("×")));
  size->addWidget(m_height);
  size->addWidget(m_unit);
  form->addRow(tr("&Format"), m_format);
  auto* sizes = new QLabel(tr("&Width × height"));  // a row's own label has no field to lead to where that is a layout
  sizes->setBuddy(m_width);
  form->addRow(sizes, size);
  form->addRow(tr("&Resolution"), m_dpi);
  form->addRow(tr("&Colours"), m_look);
  m_preview->setFixedSize(kPreview);
  m_preview->setAlignment(Qt::AlignCenter);
  m_preview->setAccessibleName(tr("Preview"));
  m_result->setWordWrap(true);
  auto* layout = new QVBoxLayout(this);
  layout->addLayout(form);
  layout->addWidget(m_preview, 1, Qt::AlignCenter);
  layout->addWidget(m_result);
  layout->addWidget(m_buttons);
  m_buttons->button(QDialogButtonBox::Save)->setText(tr("&Save as…"));

  m_timer->setSingleShot(true);
  m_timer->setInterval(80);
  connect(m_timer, &QTimer::timeout, this, &PictureDialog::preview);
  setSettings(remembered());
  connect(m_unit, &QComboBox::currentIndexChanged, this, &PictureDialog::unitChosen);
  for (QComboBox* box : {m_format, m_look}) connect(box, &QComboBox::currentIndexChanged, this, &PictureDialog::update);
  for (QDoubleSpinBox* box : {m_width, m_height}) connect(box, &QDoubleSpinBox::valueChanged, this, &PictureDialog::update);
  connect(m_dpi, &QSpinBox::valueChanged, this, &PictureDialog::update);
  connect(m_buttons, &QDialogButtonBox::accepted, this, &PictureDialog::accept);
  connect(m_buttons, &QDialogButtonBox::rejected, this, &PictureDialog::reject);
}

PictureSettings PictureDialog::settings() const {
  PictureSettings settings;
  settings.format = m_format->currentData().toString();
  settings.pixels = m_pixels;
  settings.width = m_width->value();
  settings.height = m_height->value();
  settings.dpi = m_dpi->value();
  settings.look = PictureLook(m_look->currentIndex());
  return settings;
}

void PictureDialog::setSettings(const PictureSettings& settings) {
  m_format->setCurrentIndex(std::max(0, m_format->findData(settings.format)));
  m_dpi->setValue(settings.dpi);
  m_look->setCurrentIndex(int(settings.look));
  m_unit->setCurrentIndex(settings.pixels ? 1 : 0);
  show(settings);
  update();
}

void PictureDialog::show(const PictureSettings& settings) {
  m_pixels = settings.pixels;
  for (QDoubleSpinBox* box : {m_width, m_height}) {
    const QSignalBlocker quiet(box);
    box->setDecimals(m_pixels ? 0 : 1);
    box->setRange(m_pixels ? 50 : 10, m_pixels ? 20000 : 2000);
    box->setSingleStep(m_pixels ? 50 : 5);
    box->setValue(box == m_width ? settings.width : settings.height);
  }
}

// The same size in the other unit.
void PictureDialog::unitChosen() {
  PictureSettings now = settings();
  if (m_pixels == (m_unit->currentIndex() == 1)) return;
  const double factor = m_pixels ? kMillimetres / now.dpi : now.dpi / kMillimetres;
  now.width *= factor;
  now.height *= factor;
  now.pixels = !m_pixels;
  show(now);
  update();
}

void PictureDialog::update() {
  const PictureSettings now = settings();
  const bool numbers = now.format == QLatin1String("csv"), points = now.format == QLatin1String("png");
  for (QWidget* widget : std::initializer_list<QWidget*>{m_width, m_height, m_unit, m_look}) widget->setEnabled(!numbers);
  m_dpi->setEnabled(points || (now.pixels && !numbers));
  const QString problem = numbers ? QString() : now.problem();
  const QSize pixels = now.pixelSize();
  const QSizeF paper = now.millimetres();
  const auto number = [](double value) { return QLocale().toString(value, 'f', 1); };
  m_result->setText(!problem.isEmpty() ? problem
                    : numbers          ? tr("%1 rows of numbers, whatever page or part is shown").arg(QLocale().toString(m_plot->table().rows.size()))
                    : points           ? tr("%1 × %2 pixels, %3 × %4 mm at %5 dpi").arg(pixels.width()).arg(pixels.height()).arg(number(paper.width()), number(paper.height())).arg(now.dpi)
                                       : tr("%1 × %2 mm, lines and text at any resolution").arg(number(paper.width()), number(paper.height())));
  m_buttons->button(QDialogButtonBox::Save)->setEnabled(problem.isEmpty());
  m_timer->start();
}

void PictureDialog::preview() {
  PictureSettings now = settings();
  m_preview->setVisible(now.format != QLatin1String("csv"));
  if (!m_preview->isVisible() || !now.problem().isEmpty()) {
    m_preview->clear();
    return;
  }
  // The whole layout, at as many pixels as the preview has.
  const double ratio = devicePixelRatioF();
  QImage image = m_plot->picture(now, (QSizeF(kPreview) * ratio).toSize());
  image.setDevicePixelRatio(ratio);
  m_preview->setPixmap(QPixmap::fromImage(image));
}

void PictureDialog::accept() {
  const QString key = QStringLiteral("plots/exportFolder"), suffix = settings().format;
  QString name = m_plot->title().simplified().toLower();
  name.replace(QRegularExpression(QStringLiteral("[^\\w\\-]+"), QRegularExpression::UseUnicodePropertiesOption), QStringLiteral("-"));
  auto* files = new QFileDialog(this, tr("Export"), QSettings().value(key).toString());
  files->setAttribute(Qt::WA_DeleteOnClose);
  files->setAcceptMode(QFileDialog::AcceptSave);
  files->setNameFilter(QStringLiteral("%1 (*.%2)").arg(m_format->currentText(), suffix));
  files->setDefaultSuffix(suffix);
  files->selectFile(name);
  connect(files, &QFileDialog::fileSelected, this, &PictureDialog::write);
  files->open();
}

void PictureDialog::write(const QString& path) {
  try {
    m_plot->save(path, settings());
    remember(settings());
    QSettings().setValue(QStringLiteral("plots/exportFolder"), QFileInfo(path).path());
    QDialog::accept();
  } catch (const Error& error) {
    auto* box = new QMessageBox(QMessageBox::Warning, tr("Export"), QString::fromUtf8(error.what()), QMessageBox::Ok, this);
    box->setAttribute(Qt::WA_DeleteOnClose);
    box->open();
  }
}

}  // namespace qb::views
