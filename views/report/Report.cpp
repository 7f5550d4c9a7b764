#include "views/report/Report.h"

#include <QCoreApplication>
#include <QFileInfo>
#include <QSaveFile>

#include "core/base/error.h"

namespace qb::views {

ReportDrawings drawReport(const WrittenReport& report) {
  ReportDrawings drawings;
  for (const ReportPart& part : report.parts) {
    ReportPictures pictures(part);
    for (const ReportItem& item : part.items)
      if (const auto* picture = std::get_if<ReportPicture>(&item)) drawings.push_back(pictures.draw(*picture));
  }
  return drawings;
}

void saveReport(const WrittenReport& report, const QString& path) {
  const QString suffix = QFileInfo(path).suffix().toLower();
  if (suffix != QLatin1String("html") && suffix != QLatin1String("htm") && suffix != QLatin1String("pdf"))
    throw InputError(QCoreApplication::translate("Report", "%1: expected a name that ends in .html or .pdf").arg(path).toStdString());
  QSaveFile file(path);  // before the work: a place that cannot be written is told at once
  const auto refuse = [&] { throw ResourceError(QCoreApplication::translate("Report", "%1: cannot be written: %2").arg(path, file.errorString()).toStdString()); };
  if (!file.open(QIODevice::WriteOnly)) refuse();
  const ReportDrawings drawings = drawReport(report);
  const QByteArray bytes = suffix == QLatin1String("pdf") ? reportPdf(report, drawings) : reportHtml(report, drawings).toUtf8();
  if (file.write(bytes) != bytes.size() || !file.commit()) refuse();
}

}  // namespace qb::views
