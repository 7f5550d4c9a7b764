#include "views/models/ModelTree.h"

#include <QFont>
#include <algorithm>

#include "views/models/Format.h"

namespace qb::views {
namespace {

// An index carries its parent: 0 for models, model+1 for what stands below one, and (that row+1) above it for what stands in a block.
constexpr int kModelBits = 12;
constexpr quintptr kModelMask = (quintptr{1} << kModelBits) - 1;

// Names are narrow: "model.embed_tokens.weight" → "embed_tokens", "input_layernorm.weight" → "input_layernorm". The tooltip has the whole.
QString briefName(const OtherTensor& other) {
  QString name = QString::fromStdString(other.name);
  if (name.endsWith(QStringLiteral(".weight"))) name.chop(7);
  if (other.name != other.tensor && !other.tied) return name;  // in a block
  QStringList parts = name.split(QLatin1Char('.'));
  // A number or a bias says nothing without what stands before it.
  qsizetype kept = 1;
  bool number = false;
  parts.last().toInt(&number);
  if (number || parts.last() == QLatin1String("bias")) kept = 2;
  return parts.mid(std::max<qsizetype>(0, parts.size() - kept)).join(QLatin1Char('.'));
}

QString blockSummary(const BlockInfo& block) {
  uint64_t bytes = 0;
  for (const LinearInfo& linear : block.linears) bytes += linear.bytes;
  return formatBytes(double(bytes));
}

}  // namespace

QString modelToolTip(const ModelInfo& model) {
  const auto text = [](const std::string& value) { return QString::fromStdString(value).toHtmlEscaped(); };
  QString html = QStringLiteral("<p><b>%1</b><br>%2</p><table cellspacing='2'>")
                     .arg(text(model.name), text(model.path.string()));
  const auto row = [&](const QString& name, const QString& value) {
    if (!value.isEmpty()) html += QStringLiteral("<tr><td>%1&nbsp;&nbsp;</td><td>%2</td></tr>").arg(name, value);
  };
  row(ModelTree::tr("Family"), text(model.family));
  row(ModelTree::tr("Format"), text(model.format) + QStringLiteral(", ") + text(model.dtype));
  row(ModelTree::tr("Parameters"), formatCount(double(model.parameters)));
  row(ModelTree::tr("On disk"), formatBytes(double(model.bytes)));
  row(ModelTree::tr("Blocks"), QString::number(model.blocks.size()));
  row(ModelTree::tr("Hidden size"), QString::number(model.hidden_size));
  row(ModelTree::tr("Heads"), ModelTree::tr("%1 (%2 for keys and values)").arg(model.heads).arg(model.kv_heads));
  row(ModelTree::tr("Context"), ModelTree::tr("%1 tokens").arg(model.context_length));
  row(ModelTree::tr("Vocabulary"), QString::number(model.vocabulary));
  row(ModelTree::tr("Tokenizer"), text(model.tokenizer));
  for (const auto& [name, value] : model.facts) row(text(name), text(value));
  return html + QStringLiteral("</table>");
}

QString modelSummary(const ModelInfo& model) {
  QStringList parts{QString::fromStdString(model.family)};
  parts << ModelTree::tr("%1 blocks").arg(model.blocks.size());
  parts << ModelTree::tr("hidden size %1").arg(model.hidden_size);
  if (model.heads > 0) parts << (model.kv_heads > 0 && model.kv_heads != model.heads ? ModelTree::tr("%1 heads, %2 for keys and values").arg(model.heads).arg(model.kv_heads) : ModelTree::tr("%1 heads").arg(model.heads));
  if (model.experts > 0) parts << ModelTree::tr("%1 experts, %2 a token").arg(model.experts).arg(model.experts_per_token);
  if (model.vocabulary > 0) parts << ModelTree::tr("vocabulary %1").arg(model.vocabulary);
  if (model.context_length > 0) parts << ModelTree::tr("context %1 tokens").arg(model.context_length);
  parts << ModelTree::tr("%1 parameters, %2 in %3").arg(formatCount(double(model.parameters)), formatBytes(double(model.bytes)), QString::fromStdString(model.dtype));
  return parts.join(QStringLiteral(" · "));
}

ModelTree::Place ModelTree::place(const QModelIndex& index) const {
  if (!index.isValid()) return {};
  const quintptr id = index.internalId();
  if (id == 0) return {index.row(), -1, -1};
  const int model = int(id & kModelMask) - 1;
  const int row = int(id >> kModelBits) - 1;
  return row < 0 ? Place{model, index.row(), -1} : Place{model, row, index.row()};
}

const BlockInfo* ModelTree::blockAt(const Place& at) const {
  const ModelInfo& model = *m_models[size_t(at.model)];
  const int block = at.row - int(model.before.size());
  return at.row >= 0 && block >= 0 && block < int(model.blocks.size()) ? &model.blocks[size_t(block)] : nullptr;
}

const OtherTensor* ModelTree::otherAt(const Place& at) const {
  const ModelInfo& model = *m_models[size_t(at.model)];
  if (at.row < 0) return nullptr;
  if (const BlockInfo* block = blockAt(at)) return at.tensor >= int(block->linears.size()) ? &block->others[size_t(at.tensor) - block->linears.size()] : nullptr;
  return at.row < int(model.before.size()) ? &model.before[size_t(at.row)] : &model.after[size_t(at.row) - model.before.size() - model.blocks.size()];
}

void ModelTree::put(const ModelPtr& model) {
  for (size_t row = 0; row < m_models.size(); ++row)
    if (m_models[row]->path == model->path) {
      beginResetModel();
      m_models[row] = model;
      endResetModel();
      return;
    }
  beginInsertRows({}, int(m_models.size()), int(m_models.size()));
  m_models.push_back(model);
  endInsertRows();
}

void ModelTree::removeAt(int row) {
  if (row < 0 || row >= int(m_models.size())) return;
  // Rows below change their ids, so views must forget their indexes.
  beginResetModel();
  m_models.erase(m_models.begin() + row);
  endResetModel();
}

ModelPtr ModelTree::find(const QString& path) const {
  for (const ModelPtr& model : m_models)
    if (QString::fromStdString(model->path.string()) == path) return model;
  return {};
}

QModelIndex ModelTree::indexOf(int model, const LinearKey& key) const {
  if (model < 0 || model >= int(m_models.size())) return {};
  const auto& blocks = m_models[size_t(model)]->blocks;
  const int before = int(m_models[size_t(model)]->before.size());
  for (int b = 0; b < int(blocks.size()); ++b) {
    if (blocks[size_t(b)].index != key.block) continue;
    const auto& linears = blocks[size_t(b)].linears;
    for (int l = 0; l < int(linears.size()); ++l)
      if (QString::fromStdString(linears[size_t(l)].name) == key.name) return index(l, Name, index(before + b, Name, index(model, Name)));
  }
  return {};
}

QModelIndex ModelTree::indexOf(int model, const QString& tensor) const {
  if (model < 0 || model >= int(m_models.size()) || tensor.isEmpty()) return {};
  const QModelIndex top = index(model, Name);
  for (int row = 0; row < rowCount(top); ++row) {
    const QModelIndex below = index(row, Name, top);
    if (below.data(TensorRole).toString() == tensor) return below;
    for (int inner = 0; inner < rowCount(below); ++inner)
      if (const QModelIndex found = index(inner, Name, below); found.data(TensorRole).toString() == tensor) return found;
  }
  return {};
}

QModelIndex ModelTree::index(int row, int column, const QModelIndex& parent) const {
  if (!hasIndex(row, column, parent)) return {};
  if (!parent.isValid()) return createIndex(row, column, quintptr{0});
  const Place at = place(parent);
  const quintptr model = quintptr(at.model) + 1;
  return createIndex(row, column, at.row < 0 ? model : model | (quintptr(at.row) + 1) << kModelBits);
}

QModelIndex ModelTree::parent(const QModelIndex& child) const {
  const Place at = place(child);
  if (at.row < 0) return {};
  if (at.tensor < 0) return createIndex(at.model, 0, quintptr{0});
  return createIndex(at.row, 0, quintptr(at.model) + 1);
}

int ModelTree::rowCount(const QModelIndex& parent) const {
  if (!parent.isValid()) return int(m_models.size());
  if (parent.column() != 0) return 0;
  const Place at = place(parent);
  if (at.tensor >= 0) return 0;
  if (const BlockInfo* block = blockAt(at)) return int(block->linears.size() + block->others.size());
  const ModelInfo& model = *m_models[size_t(at.model)];
  return at.row < 0 ? int(model.before.size() + model.blocks.size() + model.after.size()) : 0;
}

int ModelTree::columnCount(const QModelIndex&) const { return ColumnCount; }

QVariant ModelTree::data(const QModelIndex& index, int role) const {
  const Place at = place(index);
  if (at.model < 0) return {};
  const ModelInfo& model = *m_models[size_t(at.model)];
  if (role == PathRole) return QString::fromStdString(model.path.string());
  if (role == Qt::TextAlignmentRole && index.column() == Size) return int(Qt::AlignRight | Qt::AlignVCenter);

  if (at.row < 0) {
    if (role == Qt::DisplayRole) switch (index.column()) {
        case Name: return QString::fromStdString(model.name);
        case Shape: return formatCount(double(model.parameters));  // what of is said below and by the tip: names need the room
        case Type: return QString::fromStdString(model.dtype);
        case Size: return formatBytes(double(model.bytes));
      }
    if (role == Qt::ToolTipRole) return modelToolTip(model);
    if (role == Qt::FontRole && index.column() == Name) {
      QFont font;
      font.setBold(true);
      return font;
    }
    return {};
  }
  if (const OtherTensor* other = otherAt(at)) return otherData(*other, index.column(), role);
  const BlockInfo& block = *blockAt(at);
  if (at.tensor < 0) {
    if (role == Qt::DisplayRole) switch (index.column()) {
        case Name: return tr("Block %1").arg(block.index);
        case Shape: return tr("%1 linears").arg(block.linears.size());
        case Size: return blockSummary(block);
      }
    return {};
  }
  const LinearInfo& linear = block.linears[size_t(at.tensor)];
  switch (role) {
    case Qt::DisplayRole:
      switch (index.column()) {
        case Name: return QString::fromStdString(linear.name);
        case Shape: return QStringLiteral("%1 × %2").arg(linear.out_features).arg(linear.in_features);
        case Type: return QString::fromStdString(linear.dtype);
        case Size: return formatBytes(double(linear.bytes));
      }
      break;
    case Qt::ToolTipRole:
      return tr("%1\n%2 outputs × %3 inputs, %4, %5")
          .arg(QString::fromStdString(linear.tensor))
          .arg(linear.out_features)
          .arg(linear.in_features)
          .arg(QString::fromStdString(linear.dtype), formatBytes(double(linear.bytes)));
    case LinearRole: return QVariant::fromValue(LinearKey{block.index, QString::fromStdString(linear.name)});
    case TensorRole: return QString::fromStdString(linear.tensor);
    case SearchRole: return QString::fromStdString(linear.tensor) + QLatin1Char(' ') + QString::fromStdString(linear.subset);
  }
  return {};
}

QVariant ModelTree::otherData(const OtherTensor& other, int column, int role) const {
  const QString name = QString::fromStdString(other.name), tensor = QString::fromStdString(other.tensor), dtype = QString::fromStdString(other.dtype);
  QStringList sizes;
  for (int64_t size : other.shape) sizes << QString::number(size);
  const QString shape = sizes.join(QStringLiteral(" × "));
  switch (role) {
    case Qt::DisplayRole:
      switch (column) {
        case Name: return briefName(other);
        case Shape: return shape;
        case Type: return other.tied ? tr("tied") : dtype;
        case Size: return other.tied ? QStringLiteral("–") : formatBytes(double(other.bytes));
      }
      return {};
    case Qt::ToolTipRole:
      return other.tied ? tr("%1: tied to the embedding, its rows are those of %2").arg(name, tensor) : tr("%1\n%2, %3, %4").arg(tensor, shape, dtype, formatBytes(double(other.bytes)));
    case TensorRole: return other.tied ? name : tensor;
    case SearchRole: return name + QLatin1Char(' ') + tensor + QLatin1Char(' ') + QString::fromStdString(other.kind);
  }
  return {};
}

QVariant ModelTree::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal) return {};
  if (role == Qt::ToolTipRole && section == Shape) return tr("Output features × input features");
  if (role == Qt::TextAlignmentRole) return int((section == Size ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
  if (role != Qt::DisplayRole) return {};
  switch (section) {
    case Name: return tr("Name");
    case Shape: return tr("Shape");
    case Type: return tr("Type");
    case Size: return tr("Size");
  }
  return {};
}

ModelFilter::ModelFilter(QObject* parent) : QSortFilterProxyModel(parent) { setRecursiveFilteringEnabled(true); }

void ModelFilter::search(const QString& text) {
  m_words = text.split(QLatin1Char(' '), Qt::SkipEmptyParts);
  invalidateFilter();
}

bool ModelFilter::filterAcceptsRow(int row, const QModelIndex& parent) const {
  if (m_words.isEmpty()) return true;
  // The path down to the row counts, so that "block 3 down" finds one linear.
  QString text;
  for (int column : {ModelTree::Name, ModelTree::Shape, ModelTree::Type})
    text += sourceModel()->index(row, column, parent).data().toString() + QLatin1Char(' ');
  text += sourceModel()->index(row, 0, parent).data(ModelTree::SearchRole).toString() + QLatin1Char(' ');
  for (QModelIndex up = parent; up.isValid(); up = up.parent()) text += up.data().toString() + QLatin1Char(' ');
  const QStringList tokens = text.split(QLatin1Char(' '), Qt::SkipEmptyParts);
  return std::all_of(m_words.begin(), m_words.end(), [&](const QString& word) {
    bool number = false;
    word.toInt(&number);
    return number ? tokens.contains(word) : text.contains(word, Qt::CaseInsensitive);
  });
}

}  // namespace qb::views
