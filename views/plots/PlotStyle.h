#pragma once
#include <QPalette>
#include <QString>
#include <QVector>
#include <qcustomplot.h>

namespace qb::views {

// How pictures look: colours taken from the palette, a marker shape beside every colour, uniform heat maps.

struct PlotColours {
  QColor background, text, faint, grid, highlight;
  bool dark = false;
};
PlotColours plotColours(const QPalette& palette);

// Marker of RunEntry::marker combined with the run's colour; six shapes, then again.
QCPScatterStyle markerStyle(int marker, const QColor& colour, double size = 7, bool filled = true);
// Runs of the first round of colours would all have marker 0; the shape follows the colour's place instead, so that colour is
// never the only sign.
int markerOf(const QColor& colour, int marker);
QPixmap markerPixmap(const QColor& colour, int marker, int side, double ratio, bool filled = true);

enum class HeatMap { Viridis, Cividis };
QCPColorGradient heatGradient(HeatMap map);
QCPColorGradient divergingGradient(bool dark);  // blue: better, orange: worse; neutral where nothing changed

// Four significant digits in the reader's locale; "–" when not finite.
QString formatNumber(double value, int digits = 4);
QString formatWithUnit(double value, const QString& unit);
// "self_attn.q_proj" → "q_proj", "mlp.experts.3.up_proj" → "experts.3.up_proj"
QString shortName(const QString& name);
QString elide(const QString& text, int characters);

// Ticks on a logarithmic axis that are labelled even where the range spans less than a decade.
class LogTicker : public QCPAxisTicker {
 protected:
  double getTickStep(const QCPRange&) override { return 1; }
  QVector<double> createTickVector(double step, const QCPRange& range) override;
  QVector<double> createSubTickVector(int count, const QVector<double>& ticks) override;

 private:
  bool m_decades = true;
  int m_stride = 1;
};

// Labelled places, thinned out so that at most `most` labels stand in the visible range.
class PlaceTicker : public QCPAxisTicker {
 public:
  struct Place {
    double at = 0;
    QString label;
  };
  void setPlaces(QVector<Place> places) { m_places = std::move(places); }
  void setMost(int most) { m_most = std::max(1, most); }

 protected:
  double getTickStep(const QCPRange&) override { return 1; }
  int getSubTickCount(double) override { return 0; }
  QVector<double> createTickVector(double step, const QCPRange& range) override;
  QVector<QString> createLabelVector(const QVector<double>& ticks, const QLocale& locale, QChar format, int precision) override;

 private:
  QVector<Place> m_places;
  int m_most = 20;
};

}  // namespace qb::views
