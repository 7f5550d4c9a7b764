#pragma once
#include <QAction>
#include <QLabel>
#include <QString>
#include <QStringList>
#include <QVariant>
#include <QVector>
#include <functional>

#include "views/plots/PlotCaption.h"
#include "views/plots/PlotStyle.h"
#include "views/plots/RowPages.h"

class QToolButton;

namespace qb::views {

// The numbers of a picture: headers carry units, missing values are null.
struct PlotTable {
  QStringList headers;
  QVector<QVector<QVariant>> rows;
};
// RFC 4180, UTF-8, "." as decimal separator, 17 significant digits at most.
QString toCsv(const PlotTable& table);

enum class PictureLook { AsShown, Light, Dark };

// How a picture leaves. Text has its size in points; so the resolution decides how much of the picture it takes when the size is in
// pixels, and how sharp it is when the size is in millimetres.
struct PictureSettings {
  QString format = QStringLiteral("png");  // svg, pdf; csv: the numbers, whatever else is here
  bool pixels = false;                     // the unit of width and height; else millimetres
  double width = 160, height = 100;
  int dpi = 300;
  PictureLook look = PictureLook::AsShown;

  QSizeF millimetres() const;
  QSize pixelSize() const;   // of a png
  QString problem() const;   // empty: it can be drawn
};

// What every picture can do: caption with conditions, zoom (wheel, rectangle), pan, reset, logarithmic axis, legend, tooltips,
// export to PNG, SVG, PDF and CSV, copying; by mouse, menu and keyboard; in the palette's colours. A picture adds setData(values),
// and overrides what differs.
class Plot : public QCustomPlot {
  Q_OBJECT
 public:
  explicit Plot(QWidget* parent = nullptr);

  void setCaption(const QString& title, const QString& conditions = {});
  QString title() const { return m_caption->title(); }
  QString conditions() const { return m_caption->conditions(); }
  // Shown instead of axes while there is nothing to draw: what to do to see something.
  void setEmptyText(const QString& text);
  bool isEmpty() const { return m_empty; }

  bool isLogarithmic() const { return m_logAction->isChecked(); }
  void setLogarithmic(bool on);
  void setLegendShown(bool on);
  // Inside a scroll area the wheel scrolls unless the plot has the focus.
  void setWheelNeedsFocus(bool on) { m_wheelNeedsFocus = on; }

  virtual PlotTable table() const = 0;
  // Format by suffix: png (twice the size on screen), svg, pdf, csv. Throws qb::InputError or qb::ResourceError naming the file.
  void save(const QString& path);
  void save(const QString& path, const PictureSettings& settings);  // the suffix is the settings'
  QImage image(double scale);
  // As it would be exported; scaled into `within`, when that is given.
  QImage picture(const PictureSettings& settings, const QSize& within = {});

  QAction* resetAction() const { return m_resetAction; }
  QAction* logAction() const { return m_logAction; }
  QAction* legendAction() const { return m_legendAction; }
  QAction* rectangleAction() const { return m_rectangleAction; }
  QAction* exportAction() const { return m_exportAction; }
  QAction* copyImageAction() const { return m_copyImageAction; }
  QAction* copyDataAction() const { return m_copyDataAction; }
  // All of them, for a context menu or a menu button.
  void fillMenu(QMenu* menu) const;
  // What whoever shows the picture adds to its context menu, for what lies at a place in pixels.
  void setMenuExtension(std::function<void(QMenu*, const QPointF& pixel)> extension) { m_menuExtension = std::move(extension); }

  // Pictures with a row a run show those that have room; the wheel, Page Up and Page Down and two buttons turn the page.
  const RowPages& pages() const { return m_pages; }
  QAction* previousPageAction() const { return m_previousPageAction; }
  QAction* nextPageAction() const { return m_nextPageAction; }

  // Of caption and legend, which stand above the axes.
  int headHeight() const;
  QSize minimumSizeHint() const override { return {160, 110}; }
  QSize sizeHint() const override { return {360, 240}; }
  // Text of the tooltip at a place in pixels; empty where there is nothing. Public for tests and assistive tools.
  virtual QString describe(const QPointF& pixel) const;

 public Q_SLOTS:
  void resetView();
  void zoom(double factor);  // below 1: nearer
  void showPage(int page);

 protected:
  virtual QCPAxis* valueAxis() const { return yAxis; }  // the one that logAction makes logarithmic
  virtual void fitView() = 0;                           // ranges of the axes that show everything
  virtual void rebuild() = 0;                           // the plottables, after data or scale changed
  virtual void restyle(const PlotColours& colours);
  virtual void activate(const QPointF& pixel);          // click or tap
  virtual bool step(int) { return false; }              // arrow left / right; true: something was chosen
  virtual int aboveRows() const { return 0; }           // pixels that text takes above the first of a page's rows
  virtual void laidOut() {}                             // sizes changed: labels may need thinning

  // Arranges the legend in as many columns as names have room for, and elides names that are still too long.
  void fitLegend();
  // Graphs of runs that are too many for colours: below the others, with one entry for all of them in the legend.
  void fold(const QVector<QCPGraph*>& others);
  QColor foldedColour() const;
  // Rows of a picture that has pages; `kept` stay in sight on every one. rebuild() draws pages().visible() at 0, 1, 2 … of yAxis.
  void setRows(int count, const QVector<int>& kept);
  void revealRow(int row);
  void setRowsAreLinears();
  // After new data: rebuilds, keeps the user's zoom, redraws soon.
  void refresh(bool empty);
  void redraw();
  const PlotColours& colours() const { return m_colours; }
  void styleAxisRect(QCPAxisRect* rect, const PlotColours& colours) const;
  QFont smallFont() const;
  // Value as drawn: on a logarithmic axis zero and below stand at its lower edge, `floor`.
  static double drawn(double value, bool logarithmic, double floor) { return logarithmic && !(value > floor) ? floor : value; }
  // Far apart values (a run that broke down beside good ones) get a logarithmic axis, once; the user may take it back.
  void chooseScale(const QVector<double>& values);
  // Limits of `values` with room; ignores what is not finite; in a logarithmic view also what is not positive.
  static QCPRange limits(const QVector<double>& values, bool logarithmic, bool fromZero = false);

  void changeEvent(QEvent* event) override;
  bool event(QEvent* event) override;
  void contextMenuEvent(QContextMenuEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void wheelEvent(QWheelEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseReleaseEvent(QMouseEvent* event) override;
  void mouseDoubleClickEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void resizeEvent(QResizeEvent* event) override;
  void focusInEvent(QFocusEvent* event) override;
  void focusOutEvent(QFocusEvent* event) override;
  void paintEvent(QPaintEvent* event) override;

  PlotCaption* m_caption;

 private:
  QAction* addPlotAction(const QString& text, const QKeySequence& key);
  void exportWithDialog();
  void drawAs(const QSize& size, PictureLook look, const std::function<void()>& draw);
  void write(const QString& path, const QByteArray& bytes) const;
  void applyScale();
  void showLegend(bool on);
  void followSize();
  void arrange();        // everything that depends on the size
  bool fitRows();
  void pagesChanged();
  void fitTicks();
  void pan(double x, double y);  // shares of the visible range

  QLabel* m_emptyLabel;
  QAction *m_resetAction, *m_rectangleAction, *m_logAction, *m_legendAction, *m_exportAction, *m_copyImageAction, *m_copyDataAction;
  QAction *m_zoomInAction, *m_zoomOutAction, *m_previousPageAction, *m_nextPageAction;
  QToolButton *m_previousButton, *m_nextButton;
  QCPItemStraightLine* m_rowDivider = nullptr;  // between the rows of a page and those kept in sight
  RowPages m_pages;
  int m_wheel = 0;  // eighths of a degree that did not turn a page yet
  PlotColours m_colours;
  QPointF m_pressed;
  std::function<void(QMenu*, const QPointF&)> m_menuExtension;
  bool m_empty = true;
  bool m_userView = false;  // zoomed or panned: new data keeps the ranges
  bool m_scaleChosen = false;
  bool m_wheelNeedsFocus = false;
  bool m_stale = false;     // the next paint event draws anew
  bool m_ready = false;     // constructed, so that virtual functions may be called
};

}  // namespace qb::views
