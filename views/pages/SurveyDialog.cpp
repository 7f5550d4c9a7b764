#include "views/pages/SurveyDialog.h"

#include <QDialogButtonBox>
#include <QFileInfo>
#include <QFormLayout>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QRegularExpression>
#include <QSpinBox>
#include <QVBoxLayout>

#include "core/base/error.h"
#include "core/measure/sensitivity.h"

namespace qb::views {
namespace {

constexpr int kUsualSamples = 16;  // ranks of linears hardly move with more

QStringList candidatesOf(const QString& text) { return text.split(QRegularExpression(QStringLiteral("[,\\s]+")), Qt::SkipEmptyParts); }

}  // namespace

SurveyDialog::SurveyDialog(const SensitivityWish& wish, const QString& model, int linears, QWidget* parent) : QDialog(parent), m_wish(wish) {
  setAttribute(Qt::WA_DeleteOnClose);
  setWindowTitle(tr("Survey of sensitivity"));
  const CalibrationSpec& text = *wish.recipe.calibration;
  auto* what = new QLabel(tr("What each scheme does to each of the %1 linears of %2: by Gram matrices and by one backward pass, which tells the KL divergence to expect. "
                             "It goes on in the background, in a process of its own, and is kept in the workspace.")
                              .arg(linears)
                              .arg(model));
  what->setWordWrap(true);
  m_samples = new QSpinBox;
  m_samples->setRange(1, 1 << 20);
  m_samples->setValue(int(std::min<int64_t>(text.sampling.samples, kUsualSamples)));
  m_samples->setSuffix(tr(" × %1 tokens").arg(text.sampling.seq_len));
  m_samples->setToolTip(tr("Of the recipe's calibration text, which has %1 samples. Time grows with it; %2 are usually enough to rank linears").arg(text.sampling.samples).arg(kUsualSamples));
  m_samples->setAccessibleName(tr("Samples of the text"));
  QStringList candidates;
  for (const std::string& candidate : wish.candidates) candidates << QString::fromStdString(candidate);
  m_candidates = new QLineEdit(candidates.join(QStringLiteral(", ")));
  m_candidates->setToolTip(tr("A type with its groups, such as int4g64, int8c (per channel), int4g128s (symmetric), or a storage type such as q4_K"));
  m_candidates->setAccessibleName(tr("Schemes to try"));
  m_candidates->setMinimumWidth(fontMetrics().horizontalAdvance(QLatin1Char('n')) * 44);
  m_measured = new QSpinBox;
  m_measured->setRange(0, linears);
  m_measured->setSpecialValueText(tr("none"));
  m_measured->setSuffix(tr(" linears"));
  m_measured->setToolTip(tr("So many linears, of all depths and kinds, are quantized alone and the KL divergence is measured: slow, and tells which figure to trust"));
  m_measured->setAccessibleName(tr("Linears to measure"));

  auto* form = new QFormLayout;
  auto* file = new QLabel(QFileInfo(QString::fromStdString(text.corpus.path.string())).fileName());
  file->setToolTip(QString::fromStdString(text.corpus.path.string()));
  form->addRow(tr("Text (of the recipe):"), file);
  form->addRow(tr("&Samples:"), m_samples);
  form->addRow(tr("S&chemes to try:"), m_candidates);
  form->addRow(tr("&Measured besides:"), m_measured);
  auto* problem = new QLabel;
  problem->setWordWrap(true);
  problem->hide();
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Cancel);
  auto* start = buttons->addButton(tr("Start the survey"), QDialogButtonBox::AcceptRole);
  buttons->button(QDialogButtonBox::Cancel)->setAutoDefault(false);
  start->setDefault(true);
  connect(buttons, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  const auto check = [this, problem, start] {
    QString why;
    try {
      parse_candidates(this->wish().candidates);
    } catch (const Error& error) {
      why = QString::fromUtf8(error.what());
    }
    problem->setText(why);
    problem->setVisible(!why.isEmpty());
    start->setEnabled(why.isEmpty());
  };
  connect(m_candidates, &QLineEdit::textChanged, this, check);
  check();
  auto* column = new QVBoxLayout(this);
  column->addWidget(what);
  column->addLayout(form);
  column->addWidget(problem);
  column->addWidget(buttons);
}

SensitivityWish SurveyDialog::wish() const {
  SensitivityWish wish = m_wish;
  wish.recipe.calibration->sampling.samples = m_samples->value();
  wish.measured = m_measured->value();
  wish.candidates.clear();
  for (const QString& candidate : candidatesOf(m_candidates->text())) wish.candidates.push_back(candidate.toStdString());
  return wish;
}

}  // namespace qb::views
