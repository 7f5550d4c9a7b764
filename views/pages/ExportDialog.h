#pragma once
#include <QDialog>
#include <optional>

#include "core/run/export_job.h"
#include "views/jobs/RunQueue.h"

class QLabel;
class QLineEdit;
class QProgressBar;
class QPushButton;
class QStackedWidget;
class QVBoxLayout;

namespace qb::views {

class ChoiceList;
class ExportResultView;
class NoticeBar;
class ReasonLabel;
class Workbench;

// A finished run on its way out: what formats and engines take it and why not, where it goes, how far it is, how it is served. Closing
// it leaves an export going, which the queue shows.
class ExportDialog : public QDialog {
  Q_OBJECT
 public:
  // job: an export of the run to follow; 0: none yet.
  ExportDialog(Workbench* workbench, const QString& run, int job = 0, QWidget* parent = nullptr);
  ~ExportDialog() override;
  const QString& run() const { return m_run; }
  int job() const { return m_job; }
  void follow(int job);

  ChoiceList* formats() { return m_formats; }
  ChoiceList* engines() { return m_engines; }
  QLineEdit* output() { return m_output; }
  QPushButton* startButton() { return m_start; }
  QPushButton* stopButton() { return m_stop; }
  NoticeBar* notices() { return m_notices; }

 private:
  enum Page { Waiting, Choosing, Working, Done };
  QWidget* makeWaiting();
  QWidget* makeChoosing();
  QWidget* makeWorking();
  void buildButtons(QVBoxLayout* column);
  void survey();
  void fillFormats();
  void fillEngines();
  void suggest();
  void check();
  void refresh();
  void browse();
  void start();
  void showJob();
  void showProgress(const Job& job);
  void turnTo(Page page);
  const FormatOffer* offer() const;  // of the chosen format
  std::vector<std::filesystem::path> promised() const;  // outputs of exports that have not ended
  QString slot(const char* what) const;
  template <class Work, class Then>
  void ask(const char* what, Work work, Then then);  // off this thread; the answer is dropped when the dialog has gone

  Workbench* m_workbench;
  QString m_run, m_runName, m_folder;
  int m_job = 0;
  JobState m_seen = JobState::Queued;
  std::optional<ExportSurvey> m_survey;
  std::shared_ptr<const ExportResult> m_result;
  ExportOptions m_made;         // what m_result was asked for as
  QString m_checked;            // the output that m_check is about
  OutputCheck m_check;
  bool m_named = false;         // the user named the output

  QStackedWidget* m_pages;
  QLabel *m_title, *m_facts;
  QLabel* m_waiting;
  QProgressBar* m_waitingBar;
  ChoiceList *m_formats, *m_engines;
  QLineEdit* m_output;
  QLabel* m_room;
  ReasonLabel* m_problem;
  NoticeBar* m_notices;
  QLabel *m_phase, *m_time, *m_target;
  QProgressBar* m_progress;
  ExportResultView* m_done;
  QPushButton *m_start, *m_stop, *m_again, *m_reveal, *m_retry, *m_close;
};

// Opens a folder, or the one that a file lies in, in the desktop's file manager.
void showInFileManager(const QString& path);

}  // namespace qb::views
