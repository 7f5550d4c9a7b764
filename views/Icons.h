#pragma once
#include <QIcon>
#include <QString>

namespace qb::views {

// A line icon of the program's own set, drawn in the palette's text colour at any size, so that it follows theme and scale.
QIcon icon(const QString& name);

}  // namespace qb::views
