#pragma once
#include <QDialog>

#include "core/run/sensitivity_job.h"

class QLineEdit;
class QSpinBox;

namespace qb::views {

// What a survey of sensitivity shall find out: on how much of the recipe's calibration text, under which schemes, how many linears measured.
class SurveyDialog : public QDialog {
  Q_OBJECT
 public:
  // wish: model and text; linears: of the model.
  SurveyDialog(const SensitivityWish& wish, const QString& model, int linears, QWidget* parent = nullptr);
  SensitivityWish wish() const;

 private:
  SensitivityWish m_wish;
  QSpinBox *m_samples, *m_measured;
  QLineEdit* m_candidates;
};

}  // namespace qb::views
