#pragma once
#include <QWidget>
#include <memory>
#include <optional>

#include "core/run/export_job.h"

class QComboBox;
class QFormLayout;
class QLabel;
class QLineEdit;
class QPushButton;

namespace qb::views {

// A checkpoint that was made: where it lies, what it weighs, and the command line that serves it with each engine that takes it.
class ExportResultView : public QWidget {
  Q_OBJECT
 public:
  explicit ExportResultView(QWidget* parent = nullptr);
  // made: what the result was asked for as. survey: what engines take it; nothing: not known yet.
  void setResult(std::shared_ptr<const ExportResult> result, const ExportOptions& made, const std::optional<ExportSurvey>& survey);
  QString path() const;

 private:
  void showServe();
  std::shared_ptr<const ExportResult> m_result;
  std::string m_format;
  QFormLayout* m_form;
  QLineEdit *m_path, *m_command;
  QLabel *m_size, *m_seconds, *m_notes;
  QComboBox* m_engine;
  QPushButton* m_copy;
};

}  // namespace qb::views
