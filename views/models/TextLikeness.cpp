#include "views/models/TextLikeness.h"

#include <QCoreApplication>
#include <QLocale>
#include <cmath>

#include "views/plots/PlotStyle.h"

namespace qb::views {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("TextLikeness", text); }

QString percent(double share) { return QStringLiteral("%1 %").arg(formatNumber(100 * share, 3)); }

// Times the divergence between stretches of the text itself.
double timesItself(const ComparedText& text) { return text.halves > 0 ? text.against_first.jensen_shannon / text.halves : std::nan(""); }

}  // namespace

Likeness likenessOf(const ComparedText& text) {
  const double times = timesItself(text);
  if (std::isfinite(times)) return times < 1.6 ? Likeness::Alike : times < 3 ? Likeness::Somewhat : Likeness::Different;
  return text.against_first.jensen_shannon < 0.1 ? Likeness::Alike : text.against_first.jensen_shannon < 0.3 ? Likeness::Somewhat : Likeness::Different;
}

QString likenessTitle(Likeness likeness) {
  switch (likeness) {
    case Likeness::Alike: return tr("The calibration text is like it");
    case Likeness::Somewhat: return tr("The calibration text is somewhat like it");
    case Likeness::Different: return tr("The calibration text is unlike it");
  }
  return {};
}

Verdict verdictOf(const ComparedText& calibration, const ComparedText& text) {
  const TokenComparison& found = text.against_first;
  const Likeness likeness = likenessOf(text);
  Verdict verdict{likenessTitle(likeness), {}, likeness == Likeness::Different};
  const double times = timesItself(text);
  const QString divergence = formatNumber(found.jensen_shannon, 3);
  verdict.sentences << (std::isfinite(times) ? tr("Their tokens differ by %1 bits (Jensen–Shannon), %2 times what stretches of %3 differ by among themselves (%4).")
                                                   .arg(divergence, formatNumber(times, 2), QString::fromStdString(text.name), formatNumber(text.halves, 3))
                                             : tr("Their tokens differ by %1 bits (Jensen–Shannon; 0: the same, 1: nothing in common).").arg(divergence));
  verdict.sentences << tr("%1 of its tokens, %2 of its different ones, occur in the calibration text.").arg(percent(found.coverage), percent(found.distinct_coverage));
  if (found.coverage < 0.97) verdict.sentences << tr("Channels that only the others excite are calibrated blindly: add text like it, or more text.");
  if (found.shared_passages > 0) {
    verdict.warns = true;
    verdict.sentences << tr("Leak: %1 of its runs of %2 tokens stand in the calibration text, too; what is measured on it will look better than it is.").arg(percent(found.shared_passages)).arg(kPassage);
  } else {
    verdict.sentences << tr("No run of %1 tokens stands in both: nothing leaks.").arg(kPassage);
  }
  if (!calibration.profile.lengths.empty() && !text.profile.lengths.empty() && text.profile.lengths.back() > 2 * calibration.profile.lengths.back())
    verdict.sentences << tr("Its pieces are up to %1 tokens long, the calibration's %2: late positions are never calibrated.").arg(text.profile.lengths.back()).arg(calibration.profile.lengths.back());
  return verdict;
}

QString tokenText(const std::string& spelled) {
  QString text = QString::fromStdString(spelled);
  text.replace(QChar(0x0120), QChar(0x2423)).replace(QChar(0x2581), QChar(0x2423)).replace(QLatin1Char(' '), QChar(0x2423));
  text.replace(QChar(0x010A), QChar(0x21B5)).replace(QLatin1Char('\n'), QChar(0x21B5)).replace(QChar(0x0109), QChar(0x21E5)).replace(QLatin1Char('\t'), QChar(0x21E5));
  return text;
}

void TokenShiftModel::setShifts(const TextComparisonPtr& comparison, const std::vector<TokenComparison::Shift>& shifts) {
  beginResetModel();
  m_comparison = comparison;
  m_shifts = shifts;
  endResetModel();
}

int TokenShiftModel::rowCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : int(m_shifts.size()); }
int TokenShiftModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : ColumnCount; }

QVariant TokenShiftModel::data(const QModelIndex& index, int role) const {
  if (!index.isValid()) return {};
  const TokenComparison::Shift& shift = m_shifts[size_t(index.row())];
  if (role == Qt::TextAlignmentRole) return int((index.column() == Token ? Qt::AlignLeft : Qt::AlignRight) | Qt::AlignVCenter);
  if (role == Qt::ToolTipRole && m_comparison) {
    const auto it = m_comparison->tokens.find(shift.id);
    return tr("token %1: %2").arg(shift.id).arg(it == m_comparison->tokens.end() ? QString() : QString::fromStdString(it->second));
  }
  if (role != Qt::DisplayRole) return {};
  switch (index.column()) {
    case Token: {
      const auto it = m_comparison->tokens.find(shift.id);
      return it == m_comparison->tokens.end() || it->second.empty() ? QString::number(shift.id) : tokenText(it->second);
    }
    case InCalibration: return percent(shift.in_a);
    case InUse: return percent(shift.in_b);
    case Times: return shift.in_a <= 0 || shift.in_b <= 0 ? tr("only there") : QStringLiteral("× %1").arg(formatNumber(std::max(shift.in_a, shift.in_b) / std::min(shift.in_a, shift.in_b), 2));
  }
  return {};
}

QVariant TokenShiftModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal) return {};
  if (role == Qt::TextAlignmentRole) return int((section == Token ? Qt::AlignLeft : Qt::AlignRight) | Qt::AlignVCenter);
  if (role != Qt::DisplayRole) return {};
  switch (section) {
    case Token: return tr("Token");
    case InCalibration: return tr("Calibration");
    case InUse: return tr("This text");
    case Times: return tr("Apart");
  }
  return {};
}

}  // namespace qb::views
