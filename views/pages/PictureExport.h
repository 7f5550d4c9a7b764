#pragma once
#include <QString>
#include <QStringList>
#include <QVector>

#include "views/models/Selection.h"

namespace qb::views {

// Draws what the Layers and Accuracy pages and the inspector show of these runs into files of `folder` (made when absent):
// each picture as PNG and SVG, its numbers as CSV, and both pages as they look in the window. Needs a QApplication, no
// display ("offscreen" platform). Returns the files written. Throws qb::ResourceError naming what could not be written.
QStringList exportPictures(const QVector<RunPtr>& runs, const QString& folder);

}  // namespace qb::views
