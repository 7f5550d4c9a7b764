#include <QRegularExpression>
#include <algorithm>

#include "views/report/Report.h"

namespace qb::views {
namespace {

QString escaped(const std::string& text) {
  QString out = QString::fromStdString(text).toHtmlEscaped();
  static const QRegularExpression controls(QStringLiteral("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f]"));  // which XML has no form of
  return out.remove(controls);
}

const char* kStyle = R"(
:root { --paper: #ffffff; --text: #1d2126; --faint: #5b6570; --line: #d9dee3; --head: #f2f4f6; --mark: #e3f1e6; --accent: #0a6aa8; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #1b1e22; --text: #e4e7ea; --faint: #9aa4ae; --line: #383e45; --head: #25292e; --mark: #1f3a28; --accent: #63b3ed; }
}
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 60rem; background: var(--paper); color: var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; }
h1.model { margin-top: 3rem; border-top: 2px solid var(--line); padding-top: 1.5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p { margin: .5rem 0; }
.subtitle, .caption { color: var(--faint); }
.caption { font-size: .87rem; margin: .25rem 0 1rem; }
.verdict { font-size: 1.08rem; padding: .8rem 1rem; background: var(--mark); border-radius: 6px; margin: .75rem 0 1rem; }
nav { margin: 1rem 0 0; font-size: .9rem; }
nav a { color: var(--accent); text-decoration: none; margin-right: 1rem; white-space: nowrap; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; margin-top: .75rem; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th { background: var(--head); font-weight: 600; vertical-align: bottom; }
th.t, td.t { text-align: left; }
td.t { overflow-wrap: break-word; min-width: 4.5rem; }
tr.marked td { background: var(--mark); }
figure { margin: 1rem 0 1.5rem; }
figure img { display: block; width: 100%; height: auto; border: 1px solid var(--line); border-radius: 4px; box-sizing: border-box; }
pre { background: var(--head); border: 1px solid var(--line); border-radius: 4px; padding: .7rem .9rem; overflow-x: auto; font: .82rem/1.45 ui-monospace, "DejaVu Sans Mono", Consolas, monospace; }
summary { cursor: pointer; color: var(--accent); margin: .5rem 0; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; } h2, h3 { break-after: avoid; } figure, tr { break-inside: avoid; } }
)";

class Html {
 public:
  explicit Html(const ReportDrawings& drawings) : m_drawings(drawings) {}

  QString whole(const WrittenReport& report) {
    for (const ReportPart& part : report.parts)
      for (const ReportItem& item : part.items) std::visit([this](const auto& one) { add(one); }, item);
    const QString title = escaped(report.title);
    return QStringLiteral("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>") + title +
           QStringLiteral("</title>\n<style>") + QString::fromUtf8(kStyle) + QStringLiteral("</style>\n</head>\n<body>\n<h1>") + title + QStringLiteral("</h1>\n<p class=\"subtitle\">") + escaped(report.subtitle) +
           QStringLiteral("</p>\n<nav>") + m_contents + QStringLiteral("</nav>\n") + m_body + QStringLiteral("</body>\n</html>\n");
  }

 private:
  void add(const ReportHeading& heading) {
    if (heading.level == 1) {
      m_body += QStringLiteral("<h1 class=\"model\">%1</h1>\n").arg(escaped(heading.text));
      return;
    }
    const QString id = QStringLiteral("s%1").arg(++m_sections);
    if (heading.level == 2) m_contents += QStringLiteral("<a href=\"#%1\">%2</a> ").arg(id, escaped(heading.text));
    m_body += QStringLiteral("<h%1 id=\"%2\">%3</h%1>\n").arg(QString::number(heading.level), id, escaped(heading.text));
  }

  void add(const ReportParagraph& paragraph) { m_body += QStringLiteral("<p%1>%2</p>\n").arg(paragraph.verdict ? QStringLiteral(" class=\"verdict\"") : QString(), escaped(paragraph.text)); }

  void add(const ReportTable& table) {
    const auto line = [&](const std::vector<std::string>& cells, const QString& tag, bool marked) {
      m_body += marked ? QStringLiteral("<tr class=\"marked\">") : QStringLiteral("<tr>");
      for (size_t i = 0; i < cells.size(); ++i)
        m_body += QLatin1Char('<') + tag + (table.texts.at(i) ? QStringLiteral(" class=\"t\">") : QStringLiteral(">")) + escaped(cells[i]) + QStringLiteral("</") + tag + QLatin1Char('>');
      m_body += QStringLiteral("</tr>\n");
    };
    m_body += QStringLiteral("<div class=\"wide\"><table>\n");
    if (std::any_of(table.header.begin(), table.header.end(), [](const std::string& cell) { return !cell.empty(); })) {
      m_body += QStringLiteral("<thead>");
      line(table.header, QStringLiteral("th"), false);
      m_body += QStringLiteral("</thead>");
    }
    m_body += QStringLiteral("<tbody>");
    for (size_t i = 0; i < table.rows.size(); ++i) line(table.rows[i], QStringLiteral("td"), int(i) == table.marked);
    m_body += QStringLiteral("</tbody></table></div>\n");
    if (!table.caption.empty()) m_body += QStringLiteral("<p class=\"caption\">%1</p>\n").arg(escaped(table.caption));
  }

  void add(const ReportCode& code) {
    const QString text = QStringLiteral("<pre>%1</pre>\n").arg(escaped(code.text));
    m_body += code.folds ? QStringLiteral("<details><summary>%1</summary>%2</details>\n").arg(escaped(code.title), text) : text;
  }

  void add(const ReportPicture&) {
    const auto& picture = m_drawings.at(m_pictures++);
    if (!picture) return;
    const auto source = [&](const QByteArray& bytes) { return QStringLiteral("data:") + picture->mime + QStringLiteral(";base64,") + QString::fromLatin1(bytes.toBase64()); };
    m_body += QStringLiteral("<figure><picture><source media=\"(prefers-color-scheme: dark)\" srcset=\"") + source(picture->dark) + QStringLiteral("\"/><img alt=\"") +
              escaped((picture->title + QStringLiteral(": ") + picture->conditions).toStdString()) + QStringLiteral("\" src=\"") + source(picture->light) + QStringLiteral("\"/></picture></figure>\n");
  }

  const ReportDrawings& m_drawings;
  QString m_body, m_contents;
  int m_sections = 0;
  qsizetype m_pictures = 0;
};

}  // namespace

QString reportHtml(const WrittenReport& report, const ReportDrawings& drawings) { return Html(drawings).whole(report); }

}  // namespace qb::views
