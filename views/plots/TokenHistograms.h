#pragma once
#include "views/models/Accuracy.h"
#include "views/plots/HistogramPlot.h"

namespace qb::views {

// How single tokens fare in every run whose measure keeps that, and in the float model (in `floatColour`) where that is no reference of itself.
QVector<HistogramSeries> tokenSeries(const Accuracy& accuracy, const QColor& floatColour);
QString tokenAxis(const Accuracy& accuracy);

}  // namespace qb::views
