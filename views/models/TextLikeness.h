#pragma once
#include <QAbstractTableModel>
#include <QStringList>
#include <memory>

#include "core/run/text_comparison.h"

namespace qb::views {

using TextComparisonPtr = std::shared_ptr<const TextComparison>;

// What a comparison says in words: whether a text is like the one that calibrates.
enum class Likeness { Alike, Somewhat, Different };
Likeness likenessOf(const ComparedText& text);
QString likenessTitle(Likeness likeness);
struct Verdict {
  QString title;
  QStringList sentences;
  bool warns = false;  // something is to be done about it
};
Verdict verdictOf(const ComparedText& calibration, const ComparedText& text);

// A token for people: spaces, line breaks and tabs as signs.
QString tokenText(const std::string& spelled);

// Tokens of which the calibration text has too little for the other, or too much.
class TokenShiftModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  enum Column { Token, InCalibration, InUse, Times, ColumnCount };
  using QAbstractTableModel::QAbstractTableModel;
  void setShifts(const TextComparisonPtr& comparison, const std::vector<TokenComparison::Shift>& shifts);

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

 private:
  TextComparisonPtr m_comparison;
  std::vector<TokenComparison::Shift> m_shifts;
};

}  // namespace qb::views
