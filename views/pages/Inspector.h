#pragma once
#include <QWidget>

#include <QCache>
#include <QPointer>
#include <memory>

#include "views/jobs/Services.h"
#include "views/models/Selection.h"

class QAbstractItemModel;
class QLabel;
class QTableView;
class QTimer;

namespace qb::views {

class Background;
class ChannelPlot;
class FactsModel;
class HistogramPlot;
class LinearNumbersModel;
class OutlierPlot;

// What is selected: the current linear in the current run and beside the shown ones; the tensor as the model has it, before any
// run; below it the facts of the run.
class Inspector : public QWidget {
  Q_OBJECT
 public:
  explicit Inspector(Selection* selection, QWidget* parent = nullptr);
  ~Inspector() override;
  // Reads tensors of the open model, on worker threads and only while the inspector is seen.
  void setTensorReader(Background* background, TensorReader reader);
  // Finds where clipping cut, in a finished run's files; likewise.
  using ClipReader = std::function<ClipRanges(const std::filesystem::path& run, const std::string& module, const std::stop_token&)>;
  void setClipReader(Background* background, ClipReader reader, std::function<std::filesystem::path(const QString& run)> folderOf);

 protected:
  void showEvent(QShowEvent* event) override;
  bool eventFilter(QObject* object, QEvent* event) override;

 private:
  QTableView* makeTable(QAbstractItemModel* model, const QString& name);
  void fitTable(QTableView* table);
  void fitHistograms();
  void scheduleUpdate();
  void updateData();
  void updateLinear(const RunEntry* run);
  void updateClips(const RunEntry& run);
  bool updateTensor();  // whether there is one
  void readTensor();
  void showTensor();

  // The tensor that is looked at.
  struct Wanted {
    ModelPtr model;
    QString name, stored, kind;  // stored: whose values they are; kind: OtherTensor's, or "linear"
    bool tied = false;
    QString key() const;
  };
  Wanted wantedTensor() const;

  Selection* m_selection;
  QTimer* m_timer;
  QLabel *m_hint, *m_linearTitle, *m_linearRun, *m_runTitle;
  QWidget *m_content, *m_linearBox, *m_runBox;
  FactsModel *m_linearFacts, *m_runFacts;
  LinearNumbersModel* m_numbers;
  QTableView *m_linearFactsTable, *m_runFactsTable, *m_numbersTable;
  HistogramPlot *m_weights, *m_weightError, *m_outputError, *m_input;
  OutlierPlot* m_outliers;

  QPointer<Background> m_background;
  TensorReader m_reader;
  Wanted m_wanted;
  QString m_reading;  // key that a worker is at; empty: none
  QString m_problem;  // why m_wanted cannot be read
  QCache<QString, std::shared_ptr<const TensorSummary>> m_read{32};
  ClipReader m_clipReader;
  std::function<std::filesystem::path(const QString&)> m_folderOf;
  QString m_clipsOf, m_clipsReading;  // run and linear that m_weights' lines are of; that a worker is at
  QCache<QString, std::shared_ptr<const ClipRanges>> m_clips{256};
  QWidget* m_tensorBox;
  QLabel *m_tensorTitle, *m_tensorNote;
  FactsModel* m_tensorFacts;
  QTableView* m_tensorFactsTable;
  HistogramPlot* m_values;
  ChannelPlot *m_columns, *m_rows;
};

}  // namespace qb::views
