#pragma once
#include <QString>
#include <QVector>
#include <optional>

#include "views/report/ReportPictures.h"

namespace qb::views {

// Pictures of a report, in the order of its parts and their items; nullopt where there is nothing to see.
using ReportDrawings = QVector<std::optional<DrawnPicture>>;
ReportDrawings drawReport(const WrittenReport& report);

// One file that asks for no other: styles and pictures are inside, in light and dark. Well-formed XML too.
QString reportHtml(const WrittenReport& report, const ReportDrawings& drawings);
// On A4, with page numbers.
QByteArray reportPdf(const WrittenReport& report, const ReportDrawings& drawings);

// By suffix: html, pdf. Throws InputError for others, ResourceError naming the file where it cannot be written. On the GUI thread.
void saveReport(const WrittenReport& report, const QString& path);

}  // namespace qb::views
