#include "views/Icons.h"

#include <QApplication>
#include <QHash>
#include <QIconEngine>
#include <QPainter>
#include <QPalette>
#include <QPixmap>
#include <QSvgRenderer>

namespace qb::views {
namespace {

// SVG bodies on a 16 × 16 grid, stroked 1.4 wide; "F" in front of a path fills it.
const QHash<QString, QByteArray>& shapes() {
  static const QHash<QString, QByteArray> table = {
      {"open", "<path d='M1.5 13V3.5h4.5l1.5 2h7V8'/><path d='M1.5 13.2 4 8h11.3l-2.4 5.2z'/>"},
      {"model", "<path d='M8 1.6 14 4.8 8 8 2 4.8z'/><path d='M2 8l6 3.2L14 8'/><path d='M2 11.2l6 3.2 6-3.2'/>"},
      {"new", "<path d='M9 1.7H3.5v12.6h9V5.2z'/><path d='M9 1.7v3.5h3.5'/><path d='M8 7.3v5M5.5 9.8h5'/>"},
      {"recipe", "<path d='M9 1.7H3.5v12.6h9V5.2z'/><path d='M9 1.7v3.5h3.5'/><path d='M5.7 8h4.6M5.7 10.8h4.6'/>"},
      {"save", "<path d='M2 2h9.5L14 4.5V14H2z'/><path d='M4.7 2v3.8h5.6V2'/><path d='M4.5 14V9h7v5'/>"},
      {"start", "<path fill='C' d='M4.2 2.3 13 8l-8.8 5.7z'/>"},
      {"pause", "<path d='M5.2 3v10M10.8 3v10' stroke-width='2.4'/>"},
      {"stop", "<rect x='3.4' y='3.4' width='9.2' height='9.2' rx='1' fill='C'/>"},
      {"resume", "<path d='M13.2 8a5.2 5.2 0 1 1-1.7-3.9'/><path d='M13.6 1.7v3h-3'/>"},
      {"compare", "<path d='M2 14V8.5h3V14zM6.5 14V2h3v12zM11 14V5.5h3V14z'/>"},
      {"up", "<path d='M8 13V3.2M3.6 7.4 8 3l4.4 4.4'/>"},
      {"down", "<path d='M8 3v9.8M3.6 8.6 8 13l4.4-4.4'/>"},
      {"add", "<path d='M8 2.8v10.4M2.8 8h10.4'/>"},
      {"remove", "<path d='M3.4 3.4l9.2 9.2M12.6 3.4l-9.2 9.2'/>"},
      {"delete", "<path d='M2.5 4.2h11M6 4V2.2h4V4M4 4.4l.7 9.4h6.6l.7-9.4'/><path d='M6.7 7v4.2M9.3 7v4.2'/>"},
      {"eye", "<path d='M1 8c1.8-3 4.2-4.4 7-4.4S13.2 5 15 8c-1.8 3-4.2 4.4-7 4.4S2.8 11 1 8z'/><circle cx='8' cy='8' r='2' fill='C'/>"},
      {"eye-off", "<path d='M1 8c1.8-3 4.2-4.4 7-4.4S13.2 5 15 8c-1.8 3-4.2 4.4-7 4.4S2.8 11 1 8z' opacity='.45'/><path d='M3 13 13 3' opacity='.7'/>"},
      {"search", "<circle cx='6.8' cy='6.8' r='4.4'/><path d='M10.2 10.2 14.2 14.2'/>"},
      {"workspace", "<path d='M2 2.5h12v3.8H2zM2 9.7h12v3.8H2z'/><path d='M4.4 4.4h.1M4.4 11.6h.1' stroke-width='2'/>"},
      {"undo", "<path d='M5.6 3 2.4 6.2l3.2 3.2'/><path d='M2.8 6.2h6.6a3.9 3.9 0 0 1 0 7.6H6'/>"},
      {"redo", "<path d='M10.4 3l3.2 3.2-3.2 3.2'/><path d='M13.2 6.2H6.6a3.9 3.9 0 0 0 0 7.6H10'/>"},
      {"settings", "<path d='M2 4.5h5.2M11 4.5h3M2 11.5h3M8.8 11.5H14'/><circle cx='9.1' cy='4.5' r='1.8'/><circle cx='6.9' cy='11.5' r='1.8'/>"},
      {"info", "<circle cx='8' cy='8' r='6.3'/><path d='M8 7.2v4.2M8 4.6v.2' stroke-width='1.8'/>"},
      {"warning", "<path d='M8 1.8 14.8 13.8H1.2z'/><path d='M8 6.2v3.6M8 11.7v.2' stroke-width='1.8'/>"},
      {"error", "<circle cx='8' cy='8' r='6.3'/><path d='M5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8' stroke-width='1.6'/>"},
      {"demo", "<path d='M6 1.8h4M6.8 1.8v4.4L2.6 13.2c-.4.7 0 1.2.7 1.2h9.4c.7 0 1.1-.5.7-1.2L9.2 6.2V1.8'/><path d='M4.6 10.2h6.8'/>"},
      {"copy", "<rect x='5.2' y='5.2' width='8.8' height='8.8' rx='1'/><path d='M10.8 5V2H2v8.8h3'/>"},
      {"layers", "<path d='M2 13.8V2.2M2 13.8h12.2'/><path d='M4.4 10.6l3-4.2 2.6 2.2 3.6-5'/>"},
      {"chart", "<path d='M2 13.8V2.2M2 13.8h12.2'/><circle cx='5.4' cy='10' r='1'/><circle cx='8.4' cy='6.4' r='1'/><circle cx='12' cy='4.4' r='1'/>"},
      {"expand", "<path d='M6 3.6 10.4 8 6 12.4'/>"},
      {"collapse", "<path d='M3.6 6 8 10.4 12.4 6'/>"},
      {"export", "<path d='M10.2 5.8h2.6v8H3.2v-8h2.6'/><path d='M8 9.8V1.8M5 4.6 8 1.6l3 3'/>"},
      {"table", "<path d='M1.8 2.6h12.4v10.8H1.8z'/><path d='M1.8 6.2h12.4M1.8 9.8h12.4M6 2.6v10.8'/>"},
      {"log", "<path d='M2.4 3.4h11.2M2.4 6.4h8M2.4 9.4h11.2M2.4 12.4h6'/>"},
      {"data", "<circle cx='5.8' cy='8' r='4.3'/><circle cx='10.2' cy='8' r='4.3'/>"},
      {"best", "<circle cx='8' cy='6' r='4.2'/><path d='M5.4 9.6 4.2 14.4 8 12.2l3.8 2.2-1.2-4.8'/>"},
      {"home", "<path d='M1.8 8 8 2.2 14.2 8'/><path d='M3.6 6.8v7h8.8v-7'/>"},
  };
  return table;
}

class LineIconEngine : public QIconEngine {
 public:
  explicit LineIconEngine(QString name) : m_name(std::move(name)) {}

  void paint(QPainter* painter, const QRect& rect, QIcon::Mode mode, QIcon::State) override {
    const QPalette palette = QApplication::palette();
    const QColor colour = mode == QIcon::Selected   ? palette.color(QPalette::HighlightedText)
                          : mode == QIcon::Disabled ? palette.color(QPalette::Disabled, QPalette::ButtonText)
                                                    : palette.color(QPalette::ButtonText);
    const QByteArray body = QByteArray(shapes().value(m_name)).replace("'C'", "'" + colour.name().toLatin1() + "'");
    QSvgRenderer renderer("<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><g fill='none' stroke='" + colour.name().toLatin1() +
                          "' stroke-width='1.4' stroke-linecap='round' stroke-linejoin='round'>" + body + "</g></svg>");
    renderer.render(painter, rect);
  }
  QPixmap pixmap(const QSize& size, QIcon::Mode mode, QIcon::State state) override {
    QPixmap pixmap(size);
    pixmap.fill(Qt::transparent);
    QPainter painter(&pixmap);
    paint(&painter, QRect(QPoint(), size), mode, state);
    return pixmap;
  }
  QIconEngine* clone() const override { return new LineIconEngine(m_name); }

 private:
  QString m_name;
};

}  // namespace

QIcon icon(const QString& name) {
  Q_ASSERT(shapes().contains(name));
  return QIcon(new LineIconEngine(name));
}

}  // namespace qb::views
