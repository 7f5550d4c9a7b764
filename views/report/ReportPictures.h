#pragma once
#include <QByteArray>
#include <QSizeF>
#include <QString>
#include <optional>

#include "core/run/written_report.h"
#include "views/models/Selection.h"

namespace qb::views {

// A picture of a report, as the window exports it: for light paper and for dark screens.
struct DrawnPicture {
  QByteArray light, dark;
  QByteArray print;     // the light one in pixels, where vectors are heavy or hatched, which Qt's reader of SVG does not know; else empty
  QString mime;         // of light and dark: image/svg+xml, or image/png where vectors would be heavy
  QSizeF millimetres;
  QString title, conditions;
};

// Draws the pictures of one part of a report with the plots of the window's pages. On the GUI thread.
class ReportPictures {
 public:
  explicit ReportPictures(const ReportPart& part);  // which must outlive it
  std::optional<DrawnPicture> draw(const ReportPicture& picture);  // nullopt: there is nothing to see

 private:
  const ReportPart& m_part;
  Selection m_selection;
};

}  // namespace qb::views
