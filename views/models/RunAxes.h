#pragma once
#include <QColor>
#include <QHash>
#include <QStringList>
#include <QVector>
#include <memory>

#include "core/recipe/recipe.h"
#include "views/models/Selection.h"

namespace qb::views {

using RecipePtr = std::shared_ptr<const Recipe>;

// What runs differ in, setting by setting and figure by figure: the axes of parallel coordinates.
struct RunAxes {
  struct Axis {
    QString key;               // of a setting its name, of a figure "bits", "seconds" or the key of its conditions
    QString title, note;       // note: the unit, or on which text
    QString conditions;        // of a figure that was measured
    QStringList categories;    // of a setting, in order from the bottom; empty: a figure
    double low = 0, high = 1;  // of a figure
    bool logarithmic = false;
    int better = 0;            // −1: the lower end is the better one, 1: the upper; 0: neither
    double place(double value) const;  // from the bottom (0) to the top (1); NaN where nothing is known
    QString text(double value) const;
    QVector<double> ticks() const;     // round figures, of a setting its categories
    QString heading() const;           // in one line
  };
  struct Run {
    QString id, name;
    QColor colour;
    bool shown = false, current = false;
    QVector<double> values;  // an axis each; of a setting its place among the categories; NaN: not known
  };
  QVector<Axis> axes;        // those in which the runs differ: settings, what they cost, what they give
  QVector<Run> runs;
};

// Name and value of every setting of a recipe that a sweep may vary, in the order of the recipe; defaults are written out.
QVector<QPair<QString, QString>> settingsOf(const Recipe& recipe);
// Of the runs with these ids. Settings of runs whose recipe is not here are unknown; with no recipe at all the reports' own words are
// taken. `chosen`: key of the conditions whose figure shall be the last axis.
RunAxes gatherAxes(const Selection& selection, const QStringList& runs, const QHash<QString, RecipePtr>& recipes, const QString& chosen = {});

}  // namespace qb::views
