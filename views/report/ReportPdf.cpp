#include <QAbstractTextDocumentLayout>
#include <QBuffer>
#include <QPainter>
#include <QPdfWriter>
#include <QSvgRenderer>
#include <QTextCursor>
#include <QTextDocument>
#include <QTextObjectInterface>
#include <QTextTable>
#include <cmath>
#include <utility>

#include "views/report/Report.h"

namespace qb::views {
namespace {

constexpr int kResolution = 300;  // dots an inch, in which the document is laid out
constexpr int kPictureObject = QTextFormat::UserObject + 1;
constexpr int kPictureNumber = QTextFormat::UserProperty + 1;
constexpr double kMargin = 14;    // millimetres, of the page
const QColor kFaint(0x5b, 0x65, 0x70), kLine(0xd9, 0xde, 0xe3), kHead(0xf2, 0xf4, 0xf6), kMark(0xe3, 0xf1, 0xe6);

double dots(double millimetres) { return millimetres * kResolution / 25.4; }
// Lengths of formats, which the layout scales to its device itself.
double length(double millimetres) { return millimetres * 96 / 25.4; }

}  // namespace

// Pictures inside of the document: vectors stay vectors.
class PictureInText : public QObject, public QTextObjectInterface {
  Q_OBJECT
  Q_INTERFACES(QTextObjectInterface)
 public:
  PictureInText(const ReportDrawings* drawings, double width) : m_drawings(drawings), m_width(width) {}

  QSizeF intrinsicSize(QTextDocument*, int, const QTextFormat& format) override {
    const DrawnPicture& picture = of(format);
    return {m_width, m_width * picture.millimetres.height() / picture.millimetres.width()};
  }
  void drawObject(QPainter* painter, const QRectF& rect, QTextDocument*, int, const QTextFormat& format) override {
    const DrawnPicture& picture = of(format);
    if (picture.print.isEmpty())
      QSvgRenderer(picture.light).render(painter, rect);
    else
      painter->drawImage(rect, QImage::fromData(picture.print));
  }

 private:
  const DrawnPicture& of(const QTextFormat& format) const { return *m_drawings->at(format.intProperty(kPictureNumber)); }
  const ReportDrawings* m_drawings;
  double m_width;
};

namespace {

class Pages {
 public:
  Pages(const ReportDrawings& drawings, QPdfWriter& writer) : m_drawings(drawings), m_writer(writer), m_area(dots(210 - 2 * kMargin), dots(297 - 2 * kMargin)), m_picture(&drawings, m_area.width()) {
    m_document.documentLayout()->setPaintDevice(&writer);
    m_document.documentLayout()->registerHandler(kPictureObject, &m_picture);
    m_document.setDocumentMargin(0);
    m_document.setPageSize(m_area);
    QFont font(QStringLiteral("sans-serif"));
    font.setPointSizeF(9);
    m_document.setDefaultFont(font);
    m_cursor = QTextCursor(&m_document);
  }

  void write(const WrittenReport& report) {
    m_cursor.beginEditBlock();  // laid out once, at its end
    block(report.title, 17, true, Qt::black, 0, 1);
    block(report.subtitle, 9, false, kFaint, 0, 3);
    for (const ReportPart& part : report.parts)
      for (const ReportItem& item : part.items) std::visit([this](const auto& one) { add(one); }, item);
    m_cursor.endEditBlock();
    keepHeadings();
    print(QString::fromStdString(report.title));
  }

 private:
  // A paragraph of one look; the first takes the document's empty block.
  void block(const std::string& text, double points, bool bold, const QColor& colour, double above, double below, bool keep = false, const QColor& ground = {}) {
    QTextBlockFormat format;
    format.setTopMargin(length(above));
    format.setBottomMargin(length(below));
    format.setLineHeight(115, QTextBlockFormat::ProportionalHeight);
    if (ground.isValid()) format.setBackground(ground);
    QTextCharFormat look;
    look.setFontPointSize(points);
    look.setFontWeight(bold ? QFont::DemiBold : QFont::Normal);
    look.setForeground(colour);
    start(format, look);
    m_cursor.insertText(QString::fromStdString(text), look);
    if (keep) m_keep.push_back(m_cursor.block().position());
  }

  void start(const QTextBlockFormat& format, const QTextCharFormat& look = {}) {
    if (m_fresh) {
      m_cursor.setBlockFormat(format);
      m_cursor.setBlockCharFormat(look);
    } else {
      m_cursor.insertBlock(format, look);
    }
    m_fresh = false;
  }

  void add(const ReportHeading& heading) {
    const double points = heading.level == 1 ? 15 : heading.level == 2 ? 12.5 : 10.5;
    const bool part = heading.level == 1 && std::exchange(m_parts, true);  // models begin a page, but the first
    block(heading.text, points, true, Qt::black, heading.level == 3 ? 3 : 4.5, 1, true);
    if (!part) return;
    QTextBlockFormat format = m_cursor.blockFormat();
    format.setPageBreakPolicy(QTextFormat::PageBreak_AlwaysBefore);
    m_cursor.setBlockFormat(format);
  }

  void add(const ReportParagraph& paragraph) {
    if (paragraph.verdict) {
      QTextTable* box = table(1, 1, kMark, 2);
      QTextCursor inside = box->cellAt(0, 0).firstCursorPosition();
      QTextCharFormat look;
      look.setFontPointSize(10);
      inside.insertText(QString::fromStdString(paragraph.text), look);
      leave();
      return;
    }
    block(paragraph.text, 9, false, Qt::black, 0.5, 1);
  }

  QTextTable* table(int rows, int columns, const QColor& ground, double padding) {
    QTextBlockFormat thin;  // there is always a block before a table
    thin.setLineHeight(1, QTextBlockFormat::FixedHeight);
    start(thin);
    QTextTableFormat format;
    format.setBorder(0);
    format.setCellSpacing(0);
    format.setCellPadding(length(padding));
    format.setTopMargin(length(1));
    format.setBottomMargin(length(1.5));
    format.setWidth(QTextLength(QTextLength::PercentageLength, 100));
    if (ground.isValid()) format.setBackground(ground);
    return m_cursor.insertTable(rows, columns, format);
  }

  // Behind a table there is a block of its own: the next paragraph takes it.
  void leave() {
    m_cursor.movePosition(QTextCursor::End);
    m_fresh = true;
  }

  void add(const ReportTable& given) {
    const bool headed = std::any_of(given.header.begin(), given.header.end(), [](const std::string& cell) { return !cell.empty(); });
    const int columns = int(given.header.size());
    QTextTable* made = table(int(given.rows.size()) + headed, columns, {}, 0.5);
    QTextTableFormat format = made->format();
    format.setHeaderRowCount(headed);
    format.setBorderCollapse(true);
    if (!headed || columns < 4) format.setWidth(QTextLength(QTextLength::VariableLength, 0));
    made->setFormat(format);
    const double points = columns > 9 ? 6.6 : columns > 6 ? 7.4 : 8;
    const auto row = [&](int at, const std::vector<std::string>& cells, bool head, bool marked) {
      for (int c = 0; c < columns; ++c) {
        QTextTableCell cell = made->cellAt(at, c);
        QTextTableCellFormat look;
        look.setBottomBorder(length(0.15));
        look.setBottomBorderStyle(QTextFrameFormat::BorderStyle_Solid);
        look.setBottomBorderBrush(kLine);
        look.setTopPadding(length(0.5));
        look.setBottomPadding(length(0.5));
        look.setLeftPadding(length(1.2));
        look.setRightPadding(length(1.2));
        if (head) look.setBackground(kHead);
        if (marked) look.setBackground(kMark);
        cell.setFormat(look);
        QTextCursor inside = cell.firstCursorPosition();
        QTextBlockFormat side;
        side.setAlignment(given.texts.at(size_t(c)) ? Qt::AlignLeft : Qt::AlignRight);
        inside.setBlockFormat(side);
        QTextCharFormat text;
        text.setFontPointSize(points);
        if (head) text.setFontWeight(QFont::DemiBold);
        inside.insertText(QString::fromStdString(cells[size_t(c)]), text);
      }
    };
    if (headed) row(0, given.header, true, false);
    for (size_t i = 0; i < given.rows.size(); ++i) row(int(i) + headed, given.rows[i], false, int(i) == given.marked);
    leave();
    if (!given.caption.empty()) block(given.caption, 7.5, false, kFaint, 0, 2);
  }

  void add(const ReportCode& code) {
    if (!code.title.empty()) block(code.title, 8, false, kFaint, 1, 0.5, true);
    QTextTable* box = table(1, 1, kHead, 1.5);
    QTextCursor inside = box->cellAt(0, 0).firstCursorPosition();
    QTextCharFormat look;
    look.setFontFamilies({QStringLiteral("monospace")});
    look.setFontFixedPitch(true);
    look.setFontPointSize(7);
    inside.insertText(QString::fromStdString(code.text).trimmed(), look);
    leave();
  }

  void add(const ReportPicture&) {
    const qsizetype number = m_pictures++;
    if (!m_drawings.at(number)) return;
    QTextBlockFormat format;
    format.setTopMargin(length(1.5));
    format.setBottomMargin(length(1.5));
    start(format);
    QTextCharFormat look;
    look.setObjectType(kPictureObject);
    look.setProperty(kPictureNumber, int(number));
    m_cursor.insertText(QString(QChar::ObjectReplacementCharacter), look);
  }

  // A heading does not stand at the foot of a page without anything below it.
  void keepHeadings() {
    for (const int position : m_keep) {
      const QTextBlock heading = m_document.findBlock(position);
      const QRectF place = m_document.documentLayout()->blockBoundingRect(heading);
      const auto pageOf = [&](double y) { return int(y / m_area.height()); };
      QTextBlock next = heading.next();
      while (next.isValid() && m_keep.contains(next.position())) next = next.next();
      if (!next.isValid()) continue;
      const double below = m_document.documentLayout()->blockBoundingRect(next).top();
      const double left = (pageOf(place.top()) + 1) * m_area.height() - place.bottom();
      if (pageOf(below) == pageOf(place.top()) && left > dots(18)) continue;
      QTextCursor at(heading);
      QTextBlockFormat format = heading.blockFormat();
      format.setPageBreakPolicy(QTextFormat::PageBreak_AlwaysBefore);
      at.setBlockFormat(format);
    }
  }

  void print(const QString& title) {
    QPainter painter(&m_writer);
    const int pages = m_document.pageCount();
    QFont foot = m_document.defaultFont();
    foot.setPointSizeF(7.5);
    for (int page = 0; page < pages; ++page) {
      if (page > 0) m_writer.newPage();
      painter.save();
      painter.translate(0, -page * m_area.height());
      QAbstractTextDocumentLayout::PaintContext context;
      context.clip = QRectF(0, page * m_area.height(), m_area.width(), m_area.height());
      context.palette.setColor(QPalette::Text, Qt::black);
      painter.setClipRect(context.clip);
      m_document.documentLayout()->draw(&painter, context);
      painter.restore();
      painter.setFont(foot);
      painter.setPen(kFaint);
      const QRectF below(0, m_area.height() + dots(2), m_area.width(), dots(5));
      painter.drawText(below, Qt::AlignLeft | Qt::AlignTop, painter.fontMetrics().elidedText(title, Qt::ElideRight, int(m_area.width() * 0.8)));
      painter.drawText(below, Qt::AlignRight | Qt::AlignTop, QCoreApplication::translate("Report", "%1 of %2").arg(page + 1).arg(pages));
    }
  }

  const ReportDrawings& m_drawings;
  QPdfWriter& m_writer;
  QSizeF m_area;
  PictureInText m_picture;
  QTextDocument m_document;
  QTextCursor m_cursor;
  QVector<int> m_keep;  // positions of headings
  qsizetype m_pictures = 0;
  bool m_parts = false;
  bool m_fresh = true;  // the block at the cursor is empty and unused
};

}  // namespace

QByteArray reportPdf(const WrittenReport& report, const ReportDrawings& drawings) {
  QByteArray bytes;
  QBuffer buffer(&bytes);
  buffer.open(QIODevice::WriteOnly);
  QPdfWriter writer(&buffer);
  writer.setCreator(QStringLiteral("LLM-QBench Workbench"));
  writer.setTitle(QString::fromStdString(report.title));
  writer.setResolution(kResolution);
  writer.setPageSize(QPageSize(QPageSize::A4));
  writer.setPageMargins(QMarginsF(kMargin, kMargin, kMargin, kMargin), QPageLayout::Millimeter);
  Pages(drawings, writer).write(report);
  return bytes;
}

}  // namespace qb::views

#include "ReportPdf.moc"
