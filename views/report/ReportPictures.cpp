#include "views/report/ReportPictures.h"

#include <QFile>
#include <QTemporaryDir>
#include <algorithm>

#include "core/base/error.h"
#include "views/models/Accuracy.h"
#include "views/models/LinearErrors.h"
#include "views/plots/CostPlot.h"
#include "views/plots/HeatMapPlot.h"
#include "views/plots/LinearErrorsPlot.h"
#include "views/plots/MetricPlot.h"
#include "views/plots/ParetoPlot.h"
#include "views/plots/RunsHeatPlot.h"
#include "views/plots/TokenHistograms.h"
#include "views/plots/WindowDeltaPlot.h"
#include "views/Theme.h"

namespace qb::views {
namespace {

constexpr double kWidth = 190;         // millimetres: of a page between its margins
constexpr qsizetype kMostVectors = 600000;  // bytes; above that pixels weigh less
QString tr(const char* source) { return QCoreApplication::translate("Report", source); }

// A picture with a row a run has room for all of them, up to what a page takes.
double rowsHeight(size_t rows) { return std::clamp(34 + 6.2 * double(rows), 60.0, 230.0); }

QByteArray encoded(Plot& plot, PictureSettings settings, PictureLook look) {
  settings.look = look;
  const QTemporaryDir folder;
  const QString path = folder.filePath(QStringLiteral("picture.") + settings.format);
  plot.save(path, settings);
  QFile file(path);
  if (!file.open(QIODevice::ReadOnly)) throw ResourceError((path + QStringLiteral(": ") + file.errorString()).toStdString());
  return file.readAll();
}

DrawnPicture drawn(Plot& plot, double height) {
  PictureSettings settings;
  settings.format = QStringLiteral("svg");
  settings.width = kWidth;
  settings.height = height;
  plot.ensurePolished();
  plot.resize((settings.millimetres() * (plot.logicalDpiX() / 25.4)).toSize());
  DrawnPicture picture{encoded(plot, settings, PictureLook::Light), {}, {}, QStringLiteral("image/svg+xml"), settings.millimetres(), plot.title(), plot.conditions()};
  const bool heavy = picture.light.size() > kMostVectors;
  if (heavy || picture.light.contains("fillpattern")) {
    PictureSettings pixels = settings;
    pixels.format = QStringLiteral("png");
    pixels.dpi = 220;
    picture.print = encoded(plot, pixels, PictureLook::Light);
    if (heavy) {
      settings = pixels;
      picture.mime = QStringLiteral("image/png");
      picture.light = picture.print;
    }
  }
  picture.dark = encoded(plot, settings, PictureLook::Dark);
  return picture;
}

}  // namespace

ReportPictures::ReportPictures(const ReportPart& part) : m_part(part) {
  QVector<RunPtr> runs;
  for (const RunReport& run : part.runs) runs.push_back(RunPtr(RunPtr(), &run));  // the part's own
  m_selection.putRuns(runs);
  m_selection.setCurrentRun(QString::fromStdString(part.runs.at(size_t(std::max(0, part.chosen))).id));
  for (const RunReport& run : part.runs) m_selection.setShown(QString::fromStdString(run.id), true);
}

std::optional<DrawnPicture> ReportPictures::draw(const ReportPicture& wanted) {
  using Kind = ReportPicture::Kind;
  const auto finish = [](Plot& plot, double height) { return plot.isEmpty() ? std::nullopt : std::optional(drawn(plot, height)); };
  if (wanted.kind == Kind::errors || wanted.kind == Kind::runs_heat || wanted.kind == Kind::heat_map) {
    const int run = wanted.run >= 0 ? wanted.run : std::max(0, m_part.chosen);
    m_selection.setCurrentRun(QString::fromStdString(m_part.runs.at(size_t(run)).id));
    const LinearErrors errors = gatherErrors(m_selection);
    const QVector<int> rows = orderedRows(errors, LinearOrder::Depth, {});
    const QString title = metricTitle(errors.metric), conditions = errorConditions(m_selection);
    if (wanted.kind == Kind::errors) {
      LinearErrorsPlot plot;
      plot.setLogarithmic(metricIsLogarithmic(errors.metric));
      plot.setCaption(tr("%1 of every linear").arg(title), conditions);
      plot.setData(errors, rows, true);
      return finish(plot, 90);
    }
    if (wanted.kind == Kind::runs_heat) {
      RunsHeatPlot plot;
      plot.setCaption(tr("%1 of every run and linear").arg(title), conditions);
      plot.setData(errors, rows);
      return finish(plot, rowsHeight(m_part.runs.size()));
    }
    HeatMapPlot plot;
    plot.setCaption(tr("%1 of %2").arg(title, QString::fromStdString(m_part.runs.at(size_t(run)).name)), conditions);
    plot.setData(errors);
    return finish(plot, rowsHeight(size_t(errors.names().size())));
  }
  const EvaluationResult* of = wanted.run >= 0 ? &m_part.runs.at(size_t(wanted.run)).evaluations.at(size_t(wanted.evaluation)) : nullptr;
  const Accuracy accuracy = gatherAccuracy(m_selection, of ? conditionsKey(*of) : QString());
  switch (wanted.kind) {
    case Kind::metric: {
      MetricPlot plot;
      plot.setCaption(tr("%1 ± standard error").arg(accuracy.title), accuracy.conditions);
      plot.setData(accuracy);
      return finish(plot, rowsHeight(m_part.runs.size()));
    }
    case Kind::pareto: {
      ParetoPlot plot;
      plot.setCaption(tr("Size and accuracy: %1").arg(accuracy.title), accuracy.conditions);
      plot.setData(accuracy);
      return finish(plot, 95);
    }
    case Kind::differences: {
      WindowDeltaPlot plot;
      plot.setData(accuracy);
      const QString each = accuracy.byItem ? tr("Item by item") : tr("Window by window");
      plot.setCaption(tr("%1 against %2").arg(each, plot.reference()), tr("%1; mean ± standard error").arg(accuracy.conditions));
      return finish(plot, 85);
    }
    case Kind::tokens: {
      HistogramPlot plot;
      plot.setCaption(tr("%1 token by token").arg(accuracy.title), accuracy.conditions);
      plot.setData(tokenSeries(accuracy, Theme::palette(false).color(QPalette::PlaceholderText)), tokenAxis(accuracy));
      return finish(plot, 85);
    }
    default: {
      CostPlot plot;
      plot.setCaption(tr("Time and memory"));
      plot.setData(accuracy);
      return finish(plot, rowsHeight(m_part.runs.size()));
    }
  }
}

}  // namespace qb::views
