#include "views/pages/PictureExport.h"

#include <QCoreApplication>
#include <QDeadlineTimer>
#include <QDir>
#include <QRegularExpression>
#include <cmath>

#include "core/base/error.h"
#include "views/pages/AccuracyPage.h"
#include "views/pages/Inspector.h"
#include "views/pages/LayersPage.h"
#include "views/plots/Plot.h"

namespace qb::views {
namespace {

// "Output relative error of every linear" → "output-relative-error-of-every-linear"
QString slug(const QString& title) {
  QString text = title.toLower();
  text.replace(QRegularExpression(QStringLiteral("[^a-z0-9]+")), QStringLiteral("-"));
  while (text.startsWith(u'-')) text.remove(0, 1);
  while (text.endsWith(u'-')) text.chop(1);
  return text.isEmpty() ? QStringLiteral("picture") : text.left(60);
}

// Pages prepare their data in short timers.
void settle() {
  for (QDeadlineTimer deadline(400); !deadline.hasExpired();) QCoreApplication::processEvents(QEventLoop::AllEvents, 20);
}

LinearKey worstLinear(const RunReport& run) {
  LinearKey worst;
  double largest = -1;
  for (const BlockReport& block : run.blocks)
    for (const LinearReport& linear : block.linears) {
      // Without calibration there is no output error; weights always have one.
      const double error = std::isnan(linear.output_relative_error) ? linear.weight_mse : linear.output_relative_error;
      if (error > largest) {
        largest = error;
        worst = {linear.block, QString::fromStdString(linear.name)};
      }
    }
  return worst;
}

}  // namespace

QStringList exportPictures(const QVector<RunPtr>& runs, const QString& folder) {
  if (!QDir().mkpath(folder)) throw ResourceError(folder.toStdString() + ": cannot make the folder");
  Selection selection;
  LayersPage layers(&selection);
  AccuracyPage accuracy(&selection);
  Inspector inspector(&selection);
  for (const RunPtr& run : runs) {
    selection.putRun(run);
    selection.setShown(QString::fromStdString(run->id), true);
  }
  if (!runs.isEmpty()) {
    selection.setCurrentRun(QString::fromStdString(runs.last()->id));
    selection.setCurrentLinear(worstLinear(*runs.last()));
  }
  QStringList written;
  const auto put = [&](QWidget& page, const QString& name, const QSize& size) {
    // Shown on the offscreen platform, or never mapped: layouts must still be made.
    page.setAttribute(Qt::WA_DontShowOnScreen);
    page.resize(size);
    page.show();
    settle();
    const QString path = folder + u'/' + name + QStringLiteral(".png");
    if (!page.grab().save(path)) throw ResourceError(path.toStdString() + ": cannot be written");
    written << path;
    int number = 0;
    for (Plot* plot : page.findChildren<Plot*>()) {
      if (plot->isEmpty()) continue;
      const QString stem = QStringLiteral("%1/%2-%3-%4").arg(folder, name, QString::number(++number), slug(plot->title()));
      for (const char* suffix : {".png", ".svg", ".csv"}) {
        plot->save(stem + QLatin1String(suffix));
        written << stem + QLatin1String(suffix);
      }
    }
    page.hide();
  };
  put(layers, QStringLiteral("layers"), {1200, 760});
  put(accuracy, QStringLiteral("accuracy"), {1200, 760});
  put(inspector, QStringLiteral("linear"), {420, 1400});
  return written;
}

}  // namespace qb::views
