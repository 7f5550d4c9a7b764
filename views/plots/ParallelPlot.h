#pragma once
#include <QHash>

#include "views/models/RunAxes.h"
#include "views/plots/Plot.h"

namespace qb::views {

// Parallel coordinates: an axis each for what runs differ in, a line each for the runs; a line has a gap where nothing is known. A
// stretch of an axis that is drawn with the mouse keeps the runs that pass through it, on all such axes; the others turn grey and the
// page hides them elsewhere, until a double click.
class ParallelPlot : public Plot {
  Q_OBJECT
 public:
  explicit ParallelPlot(QWidget* parent = nullptr);
  ~ParallelPlot() override;
  void setData(const RunAxes& axes);
  const RunAxes& data() const { return m_data; }
  bool isBrushed() const { return !m_brushes.isEmpty(); }
  QStringList inside() const;   // ids of the runs within all stretches
  // Places from 0 to 1; from == to: none. A stretch that no run passes is not taken.
  void setBrush(const QString& axis, double from, double to);
  void clearBrushes();
  void forgetBrushes() { m_brushes.clear(); }  // without telling; before setData()
  // Key of the axis that gives lines their colours; empty: the runs' own, of many runs the last figure's.
  void setColouring(const QString& axis);
  QString colouring() const;    // as it is drawn; empty: the runs' own
  QColor colourOf(int run) const;
  QPointF pixelOf(int axis, double place) const;

  PlotTable table() const override;
  QString describe(const QPointF& pixel) const override;

 Q_SIGNALS:
  void brushed(const QStringList& runs);  // that are kept
  void released();                        // there is no stretch any more
  void runChosen(const QString& id);

 protected:
  void fitView() override;
  void rebuild() override;
  void restyle(const PlotColours& colours) override;
  void activate(const QPointF& pixel) override;
  void laidOut() override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mouseReleaseEvent(QMouseEvent* event) override;
  void mouseDoubleClickEvent(QMouseEvent* event) override;
  void leaveEvent(QEvent* event) override;

 private:
  int axisAt(const QPointF& pixel) const;  // -1: none is near
  int runAt(const QPointF& pixel) const;
  double placeAt(double y) const;          // a little beyond the ends at most
  int colouringAxis() const;               // -1: the runs' own colours
  bool isDrawn(int run) const;             // rather than grey
  void tellBrushes();
  void hover(int run);
  void fillColourings();
  void showScale();
  void addText(int axis, double place, const QString& text, Qt::Alignment alignment, const char* role);

  RunAxes m_data;
  QHash<QString, QPair<double, double>> m_brushes;  // by axis, low first
  QStringList m_kept;                               // inside(), while lines are drawn
  QVector<QPair<QCPGraph*, int>> m_lines;           // with the index of the run
  QVector<QCPItemLine*> m_axes;
  QVector<QCPItemText*> m_texts;
  QVector<QCPItemRect*> m_stretches;
  QCPColorScale* m_scale;
  QAction* m_clear;
  QMenu* m_colourings;
  QString m_colouring;
  bool m_ownColours = false;  // asked for, of however many runs
  int m_hovered = -1;
  int m_dragged = -1;
  double m_from = 0;
  QHash<QString, QPair<double, double>> m_before;  // m_brushes, when the drag began
};

}  // namespace qb::views
