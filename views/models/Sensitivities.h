#pragma once
#include <QColor>
#include <QStringList>
#include <QVector>
#include <memory>

#include "core/measure/sensitivity.h"
#include "core/recipe/bit_plan.h"
#include "views/models/Selection.h"

namespace qb::views {

using SensitivityPtr = std::shared_ptr<const Sensitivity>;

// By what a linear's sensitivity is told. The keys are those of core's allocation_costs().
enum class Figure { Guided, Fisher, Gram, Measured };
QVector<Figure> allFigures();
QString figureKey(Figure figure);     // "guided"
QString figureTitle(Figure figure);   // "Guided KL"
QString figureAxis(Figure figure);    // with its unit
QString figureMeaning(Figure figure); // a sentence
double figureOf(const CandidateSensitivity& candidate, Figure figure);  // NaN: not found out
bool hasFigure(const Sensitivity& survey, Figure figure);               // of any linear

// One figure of every linear under one candidate, largest first: a tornado's bars.
struct SensitivityBars {
  struct Bar {
    LinearKey key;
    QString kind;        // "mlp.experts.*.up_proj"
    double value = 0, error = 0;  // error: standard, 0 where there is none
    QString others;      // the other figures, a line each
  };
  QVector<Bar> bars;
  QStringList kinds;     // in the order in which a block has them
  QString candidate;
  Figure figure = Figure::Guided;
  int unknown = 0;       // linears of which the figure is not known
};
SensitivityBars gatherBars(const Sensitivity& survey, Figure figure, const QString& candidate);

// Of the kind that stands at this place among kinds: eight colours that tell themselves apart for all eyes, then again.
QColor kindColour(int place);
// Names of linears inside a block with numbers left open, in order.
QString kindOfName(const QString& name);

// "3 · q_proj, k_proj, v_proj": linears that have one scheme.
QString tiedTitle(const BitPlan& plan, size_t linear);
// "64 × 512 tokens of calib.txt, int2g64 … int8g64, rounded by rtn"
QString surveyTitle(const Sensitivity& survey);
// How far the figures agree in rank, as lines; the first says which agrees best with what was measured.
QStringList correlationLines(const Sensitivity& survey, const QString& candidate);

}  // namespace qb::views
