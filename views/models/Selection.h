#pragma once
#include <QColor>
#include <QHash>
#include <QObject>
#include <QString>
#include <QVector>
#include <memory>

#include "core/measure/report.h"
#include "core/model/model_info.h"

namespace qb::views {

using RunPtr = std::shared_ptr<const RunReport>;
using ModelPtr = std::shared_ptr<const ModelInfo>;

// A run as the window knows it. Colour and marker are the run's own everywhere (Okabe–Ito, then marker shapes).
struct RunEntry {
  QString id;
  RunPtr report;       // immutable snapshot; replaced when a block or a figure arrives
  QColor colour;
  int marker = 0;      // index into plots' marker shapes
  int style = 0;       // that colour and marker follow from
  bool shown = false;  // the eye in the run list
  QString model;       // key of the model that it was made of
  QString owner;       // "process 4711 on host": who carries it out when this window does not; empty: nobody, or this window
};

// A model that is open or that runs were made of.
struct KnownModel {
  QString key;    // its hash; of a model whose hash is not known yet, its path
  QString name;
  ModelPtr open;  // nullptr: known by its runs only
  int runs = 0;
};

// What is measured per linear, for error plots and heat colours.
enum class Metric { OutputRelativeError, OutputSqnr, OutputCosine, WeightMse, WeightMaxError, WeightSqnr, WeightKurtosis, InputKurtosis, Seconds };
QVector<Metric> allMetrics();
QString metricTitle(Metric metric);  // "Output relative error"
QString metricUnit(Metric metric);   // "", "dB", "s" …
double metricValue(const LinearReport& linear, Metric metric);
bool metricIsLogarithmic(Metric metric);  // drawn on a logarithmic axis by default
bool metricHigherIsBetter(Metric metric);

struct LinearKey {
  int block = -1;
  QString name;  // "self_attn.q_proj"
  bool isValid() const { return block >= 0; }
  bool operator==(const LinearKey&) const = default;
};

// The one place where pages, docks and the run list meet: every page observes it and sets it, none talks to another.
// One model at a time: what is shown, current, baseline and linear are those of the current model, and each model has its own.
class Selection : public QObject {
  Q_OBJECT
 public:
  explicit Selection(QObject* parent = nullptr);

  const QVector<RunEntry>& runs() const { return m_runs; }  // of all models
  QVector<RunEntry> runsOfModel() const;                    // of the current one
  QVector<RunEntry> shownRuns() const;
  const RunEntry* find(const QString& id) const;
  QVector<KnownModel> models() const;                       // by name
  QString currentModel() const { return m_currentModel; }   // its key; empty: there is none
  ModelPtr openModel() const;                               // the current one, nullptr when it is not open
  QString modelAt(const QString& path) const;               // key of the model at a path
  QString currentRun() const { return chosen().run; }
  QString baseline() const { return chosen().baseline; }    // run id, empty: none
  LinearKey currentLinear() const { return chosen().linear; }
  // Canonical name of the open model's tensor that is looked at: of the current linear, or what setCurrentTensor() chose; a tied
  // head's own name. Empty: none.
  QString currentTensor() const;
  Metric metric() const { return m_metric; }

 public Q_SLOTS:
  void putRun(const qb::views::RunPtr& report);  // adds a run (with the next colour) or replaces its snapshot
  void putRuns(const QVector<qb::views::RunPtr>& reports);  // as many putRun(), told once
  void removeRun(const QString& id);
  void removeRuns(const QStringList& ids);  // as many removeRun(), told once
  void putModel(const qb::views::ModelPtr& model);       // an open one
  void removeModel(const QString& path);
  void setCurrentModel(const QString& key);
  void setShown(const QString& id, bool shown);
  void setCurrentRun(const QString& id);                 // makes its model the current one
  void setBaseline(const QString& id);                   // of another model: refused
  void setCurrentLinear(const qb::views::LinearKey& key);
  void setCurrentTensor(const QString& tensor);          // one that is no linear; then there is no current linear
  void setOwner(const QString& id, const QString& owner);
  void setMetric(qb::views::Metric metric);

 Q_SIGNALS:
  void runsChanged();                   // a run came, went, or its eye changed; another model's are looked at
  void modelsChanged();                 // a model came or went, or its name or number of runs changed
  void currentModelChanged();
  void runUpdated(const QString& id);   // a new snapshot of a known run
  void currentRunChanged();
  void baselineChanged();
  void currentLinearChanged();          // or the current tensor
  void metricChanged();

 private:
  // What was chosen among a model's runs and linears.
  struct Chosen {
    QString run, baseline;
    LinearKey linear;
    QString tensor;  // when it is no linear
  };
  const Chosen& chosen() const;
  RunEntry* entry(const QString& id);
  void indexRuns();
  QString keyOf(const RunReport& report) const;
  bool learnHash(const QString& path, const QString& hash);  // whether runs belong to another key now
  void leaveUnknownModel();
  int freeStyle(const QString& model) const;
  QVector<RunEntry> m_runs;
  QHash<QString, int> m_rows;        // of m_runs, by id
  QVector<ModelPtr> m_open;
  QHash<QString, QString> m_hashes;  // by path
  QHash<QString, Chosen> m_chosen;   // by model
  QString m_currentModel;
  Metric m_metric = Metric::OutputRelativeError;
};

}  // namespace qb::views

Q_DECLARE_METATYPE(qb::views::RunPtr)
Q_DECLARE_METATYPE(qb::views::LinearKey)
