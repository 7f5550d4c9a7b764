#include "views/pages/ExportResultView.h"

#include <QClipboard>
#include <QComboBox>
#include <QFontDatabase>
#include <QFormLayout>
#include <QGuiApplication>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QTimer>
#include <algorithm>

#include "views/Icons.h"
#include "views/models/Format.h"
#include "views/pages/ExportOffers.h"

namespace qb::views {
namespace {

QString text(const std::string& value) { return QString::fromStdString(value); }

QLineEdit* readOnlyLine(const QString& name) {
  auto* line = new QLineEdit;
  line->setReadOnly(true);
  line->setAccessibleName(name);
  return line;
}

}  // namespace

ExportResultView::ExportResultView(QWidget* parent) : QWidget(parent) {
  m_form = new QFormLayout(this);
  m_form->setContentsMargins(0, 8, 0, 0);
  m_form->setVerticalSpacing(9);
  m_form->setFieldGrowthPolicy(QFormLayout::AllNonFixedFieldsGrow);
  m_path = readOnlyLine(tr("Where the checkpoint lies"));
  m_form->addRow(tr("Checkpoint"), m_path);
  m_size = new QLabel;
  m_form->addRow(tr("Size"), m_size);
  m_seconds = new QLabel;
  m_form->addRow(tr("Time"), m_seconds);
  m_engine = new QComboBox;
  m_engine->setSizeAdjustPolicy(QComboBox::AdjustToContents);
  m_engine->setAccessibleName(tr("Engine to serve the checkpoint with"));
  auto* engine = new QHBoxLayout;
  engine->addWidget(m_engine);
  engine->addStretch(1);
  m_form->addRow(tr("&Serve with"), engine);
  static_cast<QLabel*>(m_form->labelForField(engine))->setBuddy(m_engine);
  m_command = readOnlyLine(tr("Command line that serves the checkpoint"));
  m_command->setFont(QFontDatabase::systemFont(QFontDatabase::FixedFont));
  m_copy = new QPushButton(icon(QStringLiteral("copy")), tr("&Copy"));
  m_copy->setToolTip(tr("Copy the command line"));
  auto* command = new QHBoxLayout;
  command->setSpacing(6);
  command->addWidget(m_command, 1);
  command->addWidget(m_copy);
  m_form->addRow(tr("Command line"), command);
  m_notes = new QLabel;
  m_notes->setWordWrap(true);
  m_notes->setTextFormat(Qt::PlainText);
  m_notes->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
  m_form->addRow(tr("To know"), m_notes);
  connect(m_engine, &QComboBox::currentIndexChanged, this, &ExportResultView::showServe);
  connect(m_copy, &QPushButton::clicked, this, [this] {
    QGuiApplication::clipboard()->setText(m_command->text());
    m_copy->setText(tr("Copied"));
    QTimer::singleShot(2000, m_copy, [this] { m_copy->setText(tr("&Copy")); });
  });
}

QString ExportResultView::path() const { return m_path->text(); }

void ExportResultView::setResult(std::shared_ptr<const ExportResult> result, const ExportOptions& made, const std::optional<ExportSurvey>& survey) {
  m_result = std::move(result);
  m_format = made.format;
  m_path->setText(text(m_result->path.string()));
  m_path->setCursorPosition(0);
  m_size->setText(exportSizeText(m_result->bytes, m_result->source_bytes));
  m_seconds->setText(tr("written in %1, read back and found equal to the run in %2").arg(formatDuration(m_result->write_seconds), formatDuration(m_result->verify_seconds)));
  const QSignalBlocker quiet(m_engine);
  m_engine->clear();
  const auto add = [this](const std::string& name) {
    if (const EngineInfo* engine = find_engine(name)) m_engine->addItem(engineTitle(*engine), text(name));
  };
  bool surveyed = false;
  if (survey)
    for (const FormatOffer& offer : survey->formats)
      if (offer.format == made.format)
        for (const EngineOffer& engine : offer.engines)
          if (surveyed = true; engine.obstacles.empty()) add(engine.engine);
  if (!surveyed) add(made.engine);
  m_engine->setCurrentIndex(std::max(0, m_engine->findData(text(made.engine))));
  showServe();
}

void ExportResultView::showServe() {
  const EngineInfo* engine = find_engine(m_engine->currentData().toString().toStdString());
  m_command->setText(engine ? text(serve_command(*engine, m_result->path, m_result->cache ? &*m_result->cache : nullptr)) : QString());
  m_command->setCursorPosition(0);
  QStringList notes = exportTexts(m_result->notes);
  if (engine)
    for (const EngineInfo::Takes& takes : engine->takes)
      if (takes.format == m_format && !takes.note.empty() && !notes.contains(text(takes.note))) notes << text(takes.note);
  if (m_engine->count() == 0) notes << tr("No engine that is known here takes this run in this format.");
  m_notes->setText(notes.join(QLatin1Char('\n')));
  // Rows that have nothing to say are not shown.
  for (int row = 0; row < m_form->rowCount(); ++row) {
    QLayoutItem* field = m_form->itemAt(row, QFormLayout::FieldRole);
    if (field->layout()) m_form->setRowVisible(row, engine != nullptr);
    if (field->widget() == m_notes) m_form->setRowVisible(row, !notes.isEmpty());
  }
}

}  // namespace qb::views
