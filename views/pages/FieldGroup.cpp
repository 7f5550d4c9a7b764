#include "views/pages/FieldGroup.h"

#include <QCheckBox>
#include <QComboBox>
#include <QCompleter>
#include <QDoubleValidator>
#include <QFileDialog>
#include <QLineEdit>
#include <QLocale>
#include <QMenu>
#include <QMimeData>
#include <QDropEvent>
#include <QRegularExpression>
#include <QRegularExpressionValidator>
#include <QSpinBox>
#include <QStringListModel>
#include <QTimer>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <limits>

#include "views/Icons.h"
#include "views/Theme.h"

namespace qb::views {
namespace {

// Turning the wheel over a form must scroll it, not change what happens to lie under the pointer.
class WheelGuard : public QObject {
 public:
  using QObject::QObject;
  bool eventFilter(QObject* object, QEvent* event) override {
    if (event->type() != QEvent::Wheel || static_cast<QWidget*>(object)->hasFocus()) return false;
    event->ignore();
    return true;
  }
};

QWidget* guarded(QWidget* editor) {
  static WheelGuard guard;
  editor->setFocusPolicy(Qt::StrongFocus);
  editor->installEventFilter(&guard);
  return editor;
}

// A line for a path that takes a dropped file as its path.
class PathLine : public QLineEdit {
 public:
  using QLineEdit::QLineEdit;

 protected:
  void dragEnterEvent(QDragEnterEvent* event) override {
    if (event->mimeData()->hasUrls())
      event->acceptProposedAction();
    else
      QLineEdit::dragEnterEvent(event);
  }
  void dropEvent(QDropEvent* event) override {
    const auto urls = event->mimeData()->urls();
    if (urls.isEmpty() || !urls.front().isLocalFile()) return QLineEdit::dropEvent(event);
    setText(urls.front().toLocalFile());
    event->acceptProposedAction();
    Q_EMIT editingFinished();
  }
};

constexpr int kOffersAcross = 4;  // they are narrower than any field

QString realText(double value) { return QLocale::c().toString(value, 'g', 10); }

}  // namespace

bool keyConcerns(const QString& problemKey, const QString& fieldKey) {
  if (problemKey.isEmpty()) return false;
  if (problemKey == fieldKey) return true;
  const auto inside = [](const QString& inner, const QString& outer) {
    return inner.startsWith(outer) && inner.size() > outer.size() && (inner[outer.size()] == QLatin1Char('.') || inner[outer.size()] == QLatin1Char('['));
  };
  return inside(problemKey, fieldKey);
}

FieldGroup::FieldGroup(QWidget* parent) : QWidget(parent) {
  m_layout = new QGridLayout(this);
  m_layout->setContentsMargins(0, 0, 0, 0);
  m_layout->setColumnStretch(1, 1);
  m_layout->setHorizontalSpacing(12);
  m_layout->setVerticalSpacing(6);
}

void FieldGroup::add(const FieldText& text, QWidget* editor, QWidget* box, std::function<void(const Recipe&)> show) {
  const QString help = text.help.isEmpty() ? QString() : QStringLiteral("<p>%1</p><p><code>%2</code></p>").arg(text.help.toHtmlEscaped(), text.key.toHtmlEscaped());
  editor->setToolTip(help);
  editor->setAccessibleName(text.label);
  editor->setAccessibleDescription(text.help);
  editor->setObjectName(text.key);
  auto* caption = new QLabel(text.label);
  caption->setToolTip(help);
  caption->setBuddy(editor);
  caption->setMinimumWidth(fontMetrics().horizontalAdvance(QLatin1Char('n')) * 17);
  auto* column = new QWidget;
  auto* stack = new QVBoxLayout(column);
  stack->setContentsMargins(0, 0, 0, 0);
  stack->setSpacing(2);
  stack->addWidget(box);
  auto* problem = new QLabel;
  problem->setWordWrap(true);
  problem->setTextFormat(Qt::PlainText);
  problem->hide();
  stack->addWidget(problem);
  auto* offers = new QGridLayout;
  offers->setSpacing(4);
  offers->setColumnStretch(kOffersAcross, 1);
  stack->addLayout(offers);
  caption->setMinimumHeight(editor->sizeHint().height());  // level with the editor, also when a problem stands below it
  const int row = m_layout->rowCount();
  m_layout->addWidget(caption, row, 0, Qt::AlignTop);
  m_layout->addWidget(column, row, 1);
  m_fields.push_back({text, editor, column, caption, problem, offers, std::move(show)});
}

void FieldGroup::integer(const FieldText& text, qint64 minimum, qint64 maximum, std::function<qint64(const Recipe&)> get,
                         std::function<void(Recipe&, qint64)> set, const QString& zeroText) {
  auto* box = new QSpinBox;
  box->setRange(int(std::max<qint64>(minimum, std::numeric_limits<int>::min())), int(std::min<qint64>(maximum, std::numeric_limits<int>::max())));
  box->setKeyboardTracking(false);
  box->setGroupSeparatorShown(false);
  if (!text.unit.isEmpty()) box->setSuffix(QLatin1Char(' ') + text.unit);
  if (!zeroText.isEmpty()) box->setSpecialValueText(zeroText);
  add(text, guarded(box), box, [box, get](const Recipe& recipe) {
    const QSignalBlocker quiet(box);
    box->setValue(int(get(recipe)));
  });
  connect(box, &QSpinBox::valueChanged, this,
          [this, text, set](int value) { Q_EMIT edited(text.key, text.label, [set, value](Recipe& recipe) { set(recipe, value); }); });
}

void FieldGroup::seed(const FieldText& text, std::function<quint64(const Recipe&)> get, std::function<void(Recipe&, quint64)> set) {
  auto* box = new QLineEdit;
  box->setValidator(new QRegularExpressionValidator(QRegularExpression(QStringLiteral("[0-9]{1,20}")), box));
  add(text, box, box, [box, get](const Recipe& recipe) {
    if (const QString value = QString::number(get(recipe)); box->text() != value) box->setText(value);
  });
  connect(box, &QLineEdit::editingFinished, this, [this, text, box, set] {
    if (!box->isModified()) return;
    box->setModified(false);
    bool fits = false;
    const quint64 value = box->text().toULongLong(&fits);
    if (fits) Q_EMIT edited(text.key, text.label, [set, value](Recipe& recipe) { set(recipe, value); });
  });
}

void FieldGroup::real(const FieldText& text, double minimum, double maximum, std::function<double(const Recipe&)> get, std::function<void(Recipe&, double)> set) {
  auto* box = new QLineEdit;
  add(text, box, box, [box, get](const Recipe& recipe) {
    const double value = get(recipe);
    bool ok = false;
    if (QLocale::c().toDouble(box->text(), &ok) == value && ok) return;
    box->setText(realText(value));
  });
  connect(box, &QLineEdit::editingFinished, this, [this, text, box, minimum, maximum, set] {
    if (!box->isModified()) return;
    box->setModified(false);
    bool ok = false;
    const double value = QLocale::c().toDouble(box->text().trimmed(), &ok);
    if (!ok || value < minimum || value > maximum) {
      tellProblem(*fieldOf(box), tr("A number from %1 to %2, please").arg(realText(minimum), realText(maximum)));
      return;
    }
    Q_EMIT edited(text.key, text.label, [set, value](Recipe& recipe) { set(recipe, value); });
  });
}

void FieldGroup::boolean(const FieldText& text, std::function<bool(const Recipe&)> get, std::function<void(Recipe&, bool)> set, const QString& beside) {
  auto* box = new QCheckBox(beside);
  add(text, box, box, [box, get](const Recipe& recipe) {
    const QSignalBlocker quiet(box);
    box->setChecked(get(recipe));
  });
  connect(box, &QCheckBox::toggled, this,
          [this, text, set](bool value) { Q_EMIT edited(text.key, text.label, [set, value](Recipe& recipe) { set(recipe, value); }); });
}

void FieldGroup::choice(const FieldText& text, const QStringList& values, const QStringList& titles, std::function<QString(const Recipe&)> get,
                        std::function<bool(Recipe&, const QString&)> set, bool editable) {
  auto* box = new QComboBox;
  box->setEditable(editable);
  box->setInsertPolicy(QComboBox::NoInsert);
  box->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  box->setMinimumContentsLength(8);
  for (int i = 0; i < values.size(); ++i) box->addItem(i < titles.size() ? titles[i] : values[i], values[i]);
  add(text, guarded(box), box, [box, get, editable](const Recipe& recipe) {
    const QSignalBlocker quiet(box);
    const QString value = get(recipe);
    const int index = box->findData(value);
    if (index >= 0) box->setCurrentIndex(index);
    if (editable && index < 0) box->setEditText(value);
    if (!editable && index < 0) box->setCurrentIndex(-1);
  });
  const auto commit = [this, text, set, box](const QString& value) {
    Recipe trial = m_recipe;
    if (!set(trial, value)) return tellProblem(*fieldOf(box), tr("“%1” is not known here").arg(value));
    Q_EMIT edited(text.key, text.label, [set, value](Recipe& recipe) { set(recipe, value); });
  };
  connect(box, &QComboBox::activated, this, [box, commit](int index) { commit(box->itemData(index).toString()); });
  if (editable)
    connect(box->lineEdit(), &QLineEdit::editingFinished, this, [box, commit] {
      if (!box->lineEdit()->isModified()) return;
      box->lineEdit()->setModified(false);
      const int index = box->findText(box->currentText());
      commit(index >= 0 ? box->itemData(index).toString() : box->currentText().trimmed());
    });
}

void FieldGroup::line(const FieldText& text, const QString& placeholder, std::function<QString(const Recipe&)> get,
                      std::function<void(Recipe&, const QString&)> set) {
  auto* box = new QLineEdit;
  box->setPlaceholderText(placeholder);
  add(text, box, box, [box, get](const Recipe& recipe) {
    if (box->text() == get(recipe)) return;
    box->setText(get(recipe));
    box->setCursorPosition(0);
  });
  connect(box, &QLineEdit::editingFinished, this, [this, text, box, set] {
    if (!box->isModified()) return;
    box->setModified(false);
    Q_EMIT edited(text.key, text.label, [set, value = box->text().trimmed()](Recipe& recipe) { set(recipe, value); });
  });
}

void FieldGroup::path(const FieldText& text, PathKind kind, std::function<QString(const Recipe&)> get, std::function<void(Recipe&, const QString&)> set,
                      std::function<QStringList()> suggestions) {
  auto* row = new QWidget;
  auto* layout = new QHBoxLayout(row);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(4);
  auto* box = new PathLine;
  box->setMinimumWidth(60);
  box->setPlaceholderText(kind == ModelPath ? tr("Model folder or GGUF file") : kind == ImportanceFile ? tr("Importance matrix; empty: none") : tr("Text file, .jsonl or .json file, or folder"));
  auto* browse = new QToolButton;
  browse->setIcon(icon(QStringLiteral("open")));
  browse->setPopupMode(QToolButton::InstantPopup);
  browse->setToolTip(tr("Browse…"));
  browse->setAccessibleName(tr("Browse for %1").arg(text.label));
  auto* menu = new QMenu(browse);
  browse->setMenu(menu);
  layout->addWidget(box, 1);
  layout->addWidget(browse);
  add(text, box, row, [box, get](const Recipe& recipe) {
    const QString value = get(recipe);
    if (box->text().trimmed() != value) {
      box->setText(value);
      box->setCursorPosition(int(value.size()));
    }
  });
  const auto commit = [this, text, set](const QString& value) {
    Q_EMIT edited(text.key, text.label, [set, value](Recipe& recipe) { set(recipe, value); });
  };
  // Looked up as it is typed: a pause is enough.
  auto* pause = new QTimer(box);
  pause->setSingleShot(true);
  pause->setInterval(300);
  connect(box, &QLineEdit::textEdited, pause, qOverload<>(&QTimer::start));
  connect(pause, &QTimer::timeout, this, [box, commit] { commit(box->text().trimmed()); });
  connect(box, &QLineEdit::editingFinished, this, [box, commit, pause, shown = QString()]() mutable {
    pause->stop();
    const QString value = box->text().trimmed();
    if (!box->isModified() && shown == value) return;
    box->setModified(false);
    shown = value;
    commit(value);
  });
  connect(menu, &QMenu::aboutToShow, this, [this, menu, box, kind, commit, suggestions] {
    menu->clear();
    const QStringList known = suggestions ? suggestions() : QStringList();
    for (const QString& path : known) menu->addAction(path, this, [commit, path] { commit(path); });
    if (!known.isEmpty()) menu->addSeparator();
    const auto ask = [this, box, commit](QFileDialog::FileMode mode, const QString& title, const QString& filter) {
      auto* dialog = new QFileDialog(this, title, box->text(), filter);
      dialog->setFileMode(mode);
      if (mode == QFileDialog::Directory) dialog->setOption(QFileDialog::ShowDirsOnly);
      dialog->setAttribute(Qt::WA_DeleteOnClose);
      connect(dialog, &QFileDialog::fileSelected, this, commit);
      dialog->open();
    };
    if (kind == ModelPath) {
      menu->addAction(tr("Model folder…"), this, [ask] { ask(QFileDialog::Directory, tr("Choose a model folder"), {}); });
      menu->addAction(tr("GGUF file…"), this, [ask] { ask(QFileDialog::ExistingFile, tr("Choose a GGUF file"), tr("GGUF files (*.gguf);;All files (*)")); });
    } else if (kind == ImportanceFile) {
      menu->addAction(tr("Importance matrix…"), this,
                      [ask] { ask(QFileDialog::ExistingFile, tr("Choose an importance matrix"), tr("Importance matrices (*.gguf *.imatrix *.dat);;All files (*)")); });
    } else {
      menu->addAction(tr("Text or JSONL file…"), this,
                      [ask] { ask(QFileDialog::ExistingFile, tr("Choose a text"), tr("Texts (*.txt *.text *.md *.raw *.jsonl *.ndjson *.json);;All files (*)")); });
      menu->addAction(tr("Folder of texts…"), this, [ask] { ask(QFileDialog::Directory, tr("Choose a folder of texts"), {}); });
    }
  });
}

void FieldGroup::knob(const KnobInfo& info, const QString& key, std::function<std::map<std::string, KnobValue>*(Recipe&)> where) {
  const auto text = [](const std::string& value) { return QString::fromStdString(value); };
  QString help = text(info.help);
  if (!info.source.empty()) help += QLatin1Char(' ') + tr("Default %1 (%2).").arg(text(to_text(info.default_value)), text(info.source));
  const FieldText field{key, text(info.title), help, text(info.unit)};
  const auto get = [where, name = info.name, fallback = info.default_value](const Recipe& recipe) {
    const auto* knobs = where(const_cast<Recipe&>(recipe));  // only read here
    if (!knobs) return fallback;
    const auto it = knobs->find(name);
    return it == knobs->end() ? fallback : it->second;
  };
  const auto set = [where, name = info.name](Recipe& recipe, KnobValue value) {
    if (auto* knobs = where(recipe)) (*knobs)[name] = std::move(value);
  };
  switch (info.type) {
    case KnobType::boolean:
      boolean(field, [get](const Recipe& r) { const auto v = get(r); return std::get_if<bool>(&v) && std::get<bool>(v); },
              [set](Recipe& r, bool v) { set(r, v); });
      break;
    case KnobType::integer:
      integer(field, qint64(info.minimum), qint64(info.maximum),
              [get](const Recipe& r) { const auto v = get(r); const auto* n = std::get_if<int64_t>(&v); return qint64(n ? *n : 0); },
              [set](Recipe& r, qint64 v) { set(r, int64_t(v)); }, text(info.zero));
      break;
    case KnobType::real:
      real(field, info.minimum, info.maximum,
           [get](const Recipe& r) {
             const auto v = get(r);
             if (const auto* n = std::get_if<int64_t>(&v)) return double(*n);
             const auto* d = std::get_if<double>(&v);
             return d ? *d : 0.0;
           },
           [set](Recipe& r, double v) { set(r, v); });
      break;
    case KnobType::choice: {
      QStringList values;
      for (const std::string& value : info.choices) values << text(value);
      choice(field, values, {},
             [get](const Recipe& r) { const auto v = get(r); const auto* s = std::get_if<std::string>(&v); return s ? QString::fromStdString(*s) : QString(); },
             [set](Recipe& r, const QString& v) { set(r, v.toStdString()); return true; });
      break;
    }
  }
}

void FieldGroup::show(const Recipe& recipe) {
  m_recipe = recipe;
  for (Field& field : m_fields) {
    const bool visible = !field.text.visible || field.text.visible(recipe);
    field.box->setVisible(visible);
    field.caption->setVisible(visible);
    if (visible) field.show(recipe);
  }
}

void FieldGroup::tellProblem(Field& field, const QString& message, const QStringList& offers) {
  field.problem->setText(message);
  field.problem->setVisible(!message.isEmpty());
  QPalette colours = field.problem->palette();
  colours.setColor(QPalette::WindowText, Theme::error());
  field.problem->setPalette(colours);
  QPalette edge = field.editor->parentWidget()->palette();
  if (!message.isEmpty()) edge.setColor(QPalette::Text, Theme::error());
  field.editor->setPalette(message.isEmpty() ? QPalette() : edge);
  if (field.offered == offers) return;
  field.offered = offers;
  while (QLayoutItem* item = field.offers->takeAt(0)) {
    if (QWidget* button = item->widget()) {
      button->hide();
      button->deleteLater();  // it may be the one that was just clicked
    }
    delete item;
  }
  auto* box = qobject_cast<QSpinBox*>(field.editor);
  if (!box) return;
  for (const QString& value : offers) {
    auto* button = new QToolButton;
    button->setText(value);
    button->setFocusPolicy(Qt::StrongFocus);
    button->setObjectName(field.text.key + QLatin1Char('=') + value);
    button->setAccessibleName(tr("%1 %2").arg(field.text.label, value));
    button->setToolTip(tr("Take %1").arg(value));
    button->setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Fixed);
    connect(button, &QToolButton::clicked, box, [box, value] { box->setValue(value.toInt()); });
    const int place = int(field.offered.indexOf(value));
    field.offers->addWidget(button, place / kOffersAcross, place % kOffersAcross);
  }
}

const FieldGroup::Field* FieldGroup::bestField(const QString& problemKey) const {
  const Field* best = nullptr;
  for (const Field& field : m_fields)
    if (keyConcerns(problemKey, field.text.key) && (!best || field.text.key.size() > best->text.key.size())) best = &field;
  return best;
}

qsizetype FieldGroup::fits(const QString& problemKey) const {
  const Field* best = bestField(problemKey);
  return best ? best->text.key.size() : 0;
}

void FieldGroup::showProblems(const QVector<RecipeProblem>& problems) {
  for (Field& field : m_fields) {
    QStringList messages, offers;
    for (const RecipeProblem& problem : problems)
      if (bestField(problem.key) == &field) {
        messages << problem.message;
        offers << problem.offers;
      }
    if (!messages.isEmpty() || !field.problem->text().isEmpty()) tellProblem(field, messages.join(QLatin1Char('\n')), offers);
  }
}

bool FieldGroup::hasKey(const QString& key) const {
  return std::any_of(m_fields.begin(), m_fields.end(), [&](const Field& field) { return field.text.key == key; });
}

void FieldGroup::focusKey(const QString& key) {
  for (Field& field : m_fields)
    if (keyConcerns(key, field.text.key)) field.editor->setFocus();
}

FieldGroup::Field* FieldGroup::fieldOf(QWidget* editor) {
  for (Field& field : m_fields)
    if (field.editor == editor) return &field;
  return nullptr;
}

}  // namespace qb::views
