#pragma once
#include <QAbstractItemModel>
#include <QSortFilterProxyModel>
#include <memory>
#include <vector>

#include "core/model/model_info.h"
#include "views/models/Selection.h"

namespace qb::views {

// The open models: model → embeddings, blocks, final norm and head; block → its linears, then its norms and the like. A thin adapter over core's value structs.
class ModelTree : public QAbstractItemModel {
  Q_OBJECT
 public:
  enum Column { Name, Shape, Type, Size, ColumnCount };
  // LinearKey of a linear; path of the model of any row; canonical name of a tensor's row, as Selection::currentTensor() has it; what else a row is found by.
  enum Role { LinearRole = Qt::UserRole + 1, PathRole, TensorRole, SearchRole };

  using QAbstractItemModel::QAbstractItemModel;

  void put(const ModelPtr& model);  // adds it, or replaces the one of the same path
  void removeAt(int row);
  const std::vector<ModelPtr>& models() const { return m_models; }
  ModelPtr find(const QString& path) const;
  QModelIndex indexOf(int model, const LinearKey& key) const;
  QModelIndex indexOf(int model, const QString& tensor) const;

  QModelIndex index(int row, int column, const QModelIndex& parent = {}) const override;
  QModelIndex parent(const QModelIndex& child) const override;
  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

 private:
  struct Place {
    int model = -1, row = -1, tensor = -1;  // row below the model, row below that block
  };
  Place place(const QModelIndex& index) const;
  const BlockInfo* blockAt(const Place& place) const;    // nullptr: the row is a tensor
  const OtherTensor* otherAt(const Place& place) const;  // nullptr: the row is a model, a block or a linear
  QVariant otherData(const OtherTensor& other, int column, int role) const;
  std::vector<ModelPtr> m_models;
};

// Keeps rows whose name, shape or dtype contains every word searched for, with their parents.
class ModelFilter : public QSortFilterProxyModel {
  Q_OBJECT
 public:
  explicit ModelFilter(QObject* parent = nullptr);
  void search(const QString& text);

 protected:
  bool filterAcceptsRow(int row, const QModelIndex& parent) const override;

 private:
  QStringList m_words;
};

QString modelToolTip(const ModelInfo& model);
// Family, blocks, heads, context, vocabulary and sizes in a sentence.
QString modelSummary(const ModelInfo& model);

}  // namespace qb::views
