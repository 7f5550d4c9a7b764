#include "views/pages/DataPage.h"

#include <QComboBox>
#include <QDragEnterEvent>
#include <QFileDialog>
#include <QFileInfo>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QMimeData>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QScrollArea>
#include <QSplitter>
#include <QTableView>
#include <QTimer>
#include <QUrl>
#include <QVBoxLayout>
#include <algorithm>

#include "views/models/Format.h"
#include "views/plots/HistogramPlot.h"
#include "views/plots/RankPlot.h"

namespace qb::views {
namespace {

const QLatin1String kSlot("texts");
constexpr int kSpelledRanks = 3000;
const QRgb kCalibration = 0xff0072b2, kUse = 0xffd55e00;

QString text(const std::string& value) { return QString::fromStdString(value); }

QString nameOf(const ComparedText& each) {
  if (each.role == "calibration") return DataPage::tr("%1 (calibration)").arg(text(each.name));
  return each.role.empty() ? text(each.name) : QStringLiteral("%1 (%2)").arg(text(each.name), text(each.role));
}

QString piecesOf(const ComparedText& each) {
  const QLocale locale;
  return DataPage::tr("%1 tokens in %2 %3").arg(locale.toString(qlonglong(each.profile.tokens)), locale.toString(qlonglong(each.profile.lengths.size())), text(each.pieces));
}

RankPlot::Series ranksOf(const ComparedText& each, const TextComparison& all, const QColor& colour, bool dashed) {
  RankPlot::Series series{nameOf(each), colour, dashed, each.profile.tokens, {}, {}};
  std::vector<std::pair<int32_t, int64_t>> counts = each.profile.counts;
  std::stable_sort(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  for (const auto& [id, count] : counts) {
    if (series.counts.size() < kSpelledRanks)
      if (const auto it = all.tokens.find(id); it != all.tokens.end()) series.spelled.push_back(tokenText(it->second));
    series.counts.push_back(count);
  }
  return series;
}

// Lengths of all texts in the same bins.
HistogramSeries lengthsOf(const ComparedText& each, int64_t low, int64_t high, const QColor& colour, bool dashed) {
  constexpr int kBins = 32;
  const int bins = int(std::clamp<int64_t>(high - low + 1, 1, kBins));
  Histogram histogram;
  histogram.low = double(low);
  histogram.high = double(high + 1);
  histogram.counts.assign(size_t(bins), 0);
  for (const int64_t length : each.profile.lengths) ++histogram.counts[size_t(std::min<int64_t>(bins - 1, (length - low) * bins / (high + 1 - low)))];
  return {nameOf(each), colour, histogram, dashed, !dashed};
}

}  // namespace

DataPage::DataPage(Workbench* workbench, QWidget* parent)
    : QWidget(parent), m_workbench(workbench), m_timer(new QTimer(this)), m_missing(new TokenShiftModel(this)), m_surplus(new TokenShiftModel(this)), m_ranks(new RankPlot), m_lengths(new HistogramPlot) {
  setAcceptDrops(true);
  m_timer->setSingleShot(true);
  m_timer->setInterval(400);  // while the recipe is typed
  connect(m_timer, &QTimer::timeout, this, &DataPage::compare);

  m_title = new QLabel;
  QFont font = m_title->font();
  font.setPointSizeF(font.pointSizeF() * 1.2);
  font.setWeight(QFont::DemiBold);
  m_title->setFont(font);
  m_title->setWordWrap(true);
  m_verdict = new QLabel;
  m_verdict->setWordWrap(true);
  m_verdict->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
  m_verdict->setAccessibleName(tr("Verdict"));
  auto* said = new QWidget;
  said->setAutoFillBackground(true);
  said->setBackgroundRole(QPalette::Base);
  auto* words = new QVBoxLayout(said);
  words->setContentsMargins(12, 8, 12, 8);
  words->addWidget(m_title);
  words->addWidget(m_verdict);

  m_lengths->setLogarithmic(false);
  auto* plots = new QSplitter(Qt::Horizontal);
  plots->addWidget(m_ranks);
  plots->addWidget(m_lengths);
  plots->setSizes({560, 440});
  plots->setChildrenCollapsible(false);
  auto* split = new QSplitter(Qt::Vertical);
  split->addWidget(plots);
  split->addWidget(makeTables());
  split->setSizes({300, 300});
  split->setChildrenCollapsible(false);
  for (QWidget* plot : std::initializer_list<QWidget*>{m_ranks, m_lengths}) plot->setMinimumHeight(190);
  m_content = new QWidget;
  auto* column = new QVBoxLayout(m_content);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  column->addWidget(said);
  column->addWidget(split, 1);
  m_content->hide();
  auto* scroll = new QScrollArea;
  scroll->setWidgetResizable(true);
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  scroll->setWidget(m_content);

  m_state = new QLabel;
  m_state->setWordWrap(true);
  m_state->setMargin(24);
  m_state->setAlignment(Qt::AlignCenter);
  m_state->setTextInteractionFlags(Qt::TextSelectableByMouse);
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(0);
  layout->addWidget(makeHead());
  layout->addWidget(m_state);
  layout->addWidget(scroll, 1);

  connect(workbench->document(), &RecipeDocument::recipeChanged, this, [this] {
    if (isVisible()) m_timer->start();
  });
  showState(tr("The calibration text of the recipe is compared with its evaluation texts here."), false);
}

QWidget* DataPage::makeHead() {
  auto* bar = new QWidget;
  auto* layout = new QHBoxLayout(bar);
  layout->setContentsMargins(8, 4, 8, 4);
  auto* label = new QLabel(tr("Calibration text &against:"));
  m_text = new QComboBox;
  m_text->setAccessibleName(tr("Text that the calibration text is compared with"));
  m_text->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  m_text->setMinimumContentsLength(6);
  label->setBuddy(m_text);
  connect(m_text, &QComboBox::activated, this, &DataPage::showText);
  m_add = new QPushButton(tr("Add texts…"));
  m_add->setToolTip(tr("Texts like your use: logs, questions, documents. Files can be dropped here, too"));
  connect(m_add, &QPushButton::clicked, this, [this] {
    auto* dialog = new QFileDialog(this, tr("Texts like your use"), {}, tr("Texts (*.txt *.text *.md *.raw *.jsonl *.json);;All files (*)"));
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    dialog->setFileMode(QFileDialog::ExistingFiles);
    connect(dialog, &QFileDialog::filesSelected, this, &DataPage::addFiles);
    dialog->open();
  });
  m_forget = new QPushButton(tr("Forget added"));
  connect(m_forget, &QPushButton::clicked, this, [this] {
    m_files.clear();
    compare();
  });
  m_stop = new QPushButton(tr("Stop"));
  connect(m_stop, &QPushButton::clicked, this, [this] {
    m_workbench->background()->cancel(kSlot);
    m_compared.clear();
    showState(tr("Stopped. Choose this page again, or change a text, to compare anew."), false);
  });
  layout->addWidget(label);
  layout->addWidget(m_text, 1);
  layout->addWidget(m_add);
  layout->addWidget(m_forget);
  layout->addWidget(m_stop);
  return bar;
}

QTableView* DataPage::makeTable(TokenShiftModel* model, const QString& name) {
  auto* table = new QTableView;
  table->setModel(model);
  table->setAccessibleName(name);
  table->setShowGrid(false);
  table->setAlternatingRowColors(true);
  table->setFrameShape(QFrame::NoFrame);
  table->setWordWrap(false);
  table->setTabKeyNavigation(false);
  table->setSelectionBehavior(QAbstractItemView::SelectRows);
  table->verticalHeader()->hide();
  table->verticalHeader()->setDefaultSectionSize(fontMetrics().height() + 6);
  table->horizontalHeader()->setHighlightSections(false);
  table->horizontalHeader()->setSectionResizeMode(QHeaderView::ResizeToContents);
  table->horizontalHeader()->setSectionResizeMode(TokenShiftModel::Token, QHeaderView::Stretch);
  table->horizontalHeader()->setMinimumSectionSize(fontMetrics().horizontalAdvance(QStringLiteral("nnnnnn")));
  return table;
}

QWidget* DataPage::makeTables() {
  const auto titled = [](QLabel* title, QWidget* below) {
    auto* box = new QWidget;
    box->setAutoFillBackground(true);
    box->setBackgroundRole(QPalette::Base);
    QFont bold = title->font();
    bold.setWeight(QFont::DemiBold);
    title->setFont(bold);
    title->setContentsMargins(8, 6, 8, 2);
    title->setWordWrap(true);
    auto* column = new QVBoxLayout(box);
    column->setContentsMargins(0, 0, 0, 0);
    column->setSpacing(0);
    column->addWidget(title);
    column->addWidget(below, 1);
    return box;
  };
  m_sharedTitle = new QLabel;
  m_shared = new QPlainTextEdit;
  m_shared->setReadOnly(true);
  m_shared->setFrameShape(QFrame::NoFrame);
  m_shared->setTabChangesFocus(true);
  m_shared->setAccessibleName(tr("Passages that stand in both texts"));
  auto* tables = new QSplitter(Qt::Horizontal);
  tables->addWidget(titled(new QLabel(tr("Too little of, in the calibration text")), makeTable(m_missing, tr("Tokens that the calibration text has too little of"))));
  tables->addWidget(titled(new QLabel(tr("Too much of")), makeTable(m_surplus, tr("Tokens that the calibration text has too much of"))));
  tables->addWidget(titled(m_sharedTitle, m_shared));
  tables->setChildrenCollapsible(false);
  tables->setSizes({340, 340, 320});
  tables->setMinimumHeight(180);
  return tables;
}

void DataPage::showEvent(QShowEvent* event) {
  QWidget::showEvent(event);
  QTimer::singleShot(0, this, &DataPage::compare);
}

void DataPage::dragEnterEvent(QDragEnterEvent* event) {
  const auto urls = event->mimeData()->urls();
  if (std::any_of(urls.begin(), urls.end(), [](const QUrl& url) { return url.isLocalFile(); })) event->acceptProposedAction();
}

void DataPage::dropEvent(QDropEvent* event) {
  QStringList texts;
  for (const QUrl& url : event->mimeData()->urls()) {
    if (!url.isLocalFile()) continue;
    // Recipes and models are for the window, wherever they are dropped.
    const QString path = url.toLocalFile(), ending = QFileInfo(path).suffix().toLower();
    if (ending == QLatin1String("yaml") || ending == QLatin1String("yml") || ending == QLatin1String("gguf") || QFileInfo::exists(path + QStringLiteral("/config.json")))
      m_workbench->openPath(path);
    else
      texts << path;
  }
  addFiles(texts);
  event->acceptProposedAction();
}

void DataPage::addFiles(const QStringList& paths) {
  for (const QString& path : paths)
    if (!m_files.contains(path)) m_files << path;
  if (!paths.isEmpty()) compare();
}

void DataPage::showState(const QString& text, bool busy) {
  m_state->setText(text);
  m_state->setVisible(!text.isEmpty());
  m_stop->setVisible(busy);
  m_forget->setVisible(!m_files.isEmpty());
}

void DataPage::compare() {
  m_timer->stop();
  const auto& service = m_workbench->services().compareTexts;
  if (!service) return;
  Recipe recipe;
  const auto unable = [this](const QString& why) {
    m_workbench->background()->cancel(kSlot);
    m_compared.clear();
    m_comparison = nullptr;
    showComparison();
    showState(why, false);
  };
  try {
    recipe = m_workbench->document()->resolved();
  } catch (const Error& error) {
    return unable(tr("The recipe has mistakes: %1").arg(QString::fromUtf8(error.what())));
  }
  if (recipe.model.empty()) return unable(tr("The recipe names no model yet: its tokenizer reads the texts."));
  if (!recipe.calibration) return unable(tr("The recipe has no calibration text yet: choose one on the Recipe page."));
  if (recipe.evaluation.empty() && m_files.isEmpty()) return unable(tr("There is nothing to compare the calibration text with: choose an evaluation text on the Recipe page, or drop texts like your use here."));
  // Of what the comparison depends on nothing else is looked at, so that other edits of the recipe cost nothing.
  Recipe texts;
  texts.model = recipe.model;
  texts.dequantize = recipe.dequantize;
  texts.calibration = recipe.calibration;
  texts.evaluation = recipe.evaluation;
  const QString key = text(to_yaml(texts)) + m_files.join(QLatin1Char('\n'));
  if (key == m_compared) return;
  m_compared = key;
  showState(tr("Reading the texts…"), true);
  std::vector<std::filesystem::path> others;
  for (const QString& file : m_files) others.push_back(file.toStdString());
  m_workbench->background()->run(
      kSlot, [service, texts, others](const std::stop_token& stop) { return std::make_shared<const TextComparison>(service(texts, others, stop)); },
      [this](const TextComparisonPtr& found) {
        m_comparison = found;
        showState({}, false);
        showComparison();
      },
      [this](const QString& error) {
        m_compared.clear();
        m_comparison = nullptr;
        showComparison();
        showState(error, false);
      });
}

void DataPage::showComparison() {
  const QString chosen = m_text->currentData().toString();
  m_text->clear();
  m_content->setVisible(bool(m_comparison));
  m_text->setEnabled(bool(m_comparison));
  if (!m_comparison) return;
  for (size_t i = 1; i < m_comparison->texts.size(); ++i) {
    const ComparedText& each = m_comparison->texts[i];
    m_text->addItem(QStringLiteral("%1 – %2").arg(nameOf(each), likenessTitle(likenessOf(each))), nameOf(each));
    m_text->setItemData(int(i) - 1, piecesOf(each), Qt::ToolTipRole);
  }
  // A text that was dropped last is what one wants to see.
  const int known = m_text->findData(chosen);
  m_text->setCurrentIndex(known >= 0 && m_files.isEmpty() ? known : m_files.isEmpty() ? 0 : m_text->count() - 1);
  showText();
}

void DataPage::showText() {
  const int at = m_text->currentIndex() + 1;
  if (!m_comparison || at < 1 || at >= int(m_comparison->texts.size())) return;
  const ComparedText &calibration = m_comparison->texts.front(), &use = m_comparison->texts[size_t(at)];
  const Verdict verdict = verdictOf(calibration, use);
  m_title->setText(QStringLiteral("%1%2: %3").arg(verdict.warns ? QStringLiteral("⚠ ") : QString(), nameOf(use), verdict.title));
  QStringList notes;
  for (const std::string& note : m_comparison->notes) notes << text(note);
  m_verdict->setText(verdict.sentences.join(QLatin1Char(' ')) + (notes.isEmpty() ? QString() : QLatin1Char('\n') + notes.join(QLatin1Char('\n'))));

  const QString both = tr("%1: %2; %3: %4").arg(nameOf(calibration), piecesOf(calibration), nameOf(use), piecesOf(use));
  m_ranks->setCaption(tr("Tokens by rank"), both);
  m_ranks->setData({ranksOf(calibration, *m_comparison, QColor::fromRgba(kCalibration), false), ranksOf(use, *m_comparison, QColor::fromRgba(kUse), true)});
  const auto& a = calibration.profile.lengths;
  const auto& b = use.profile.lengths;
  if (!a.empty() && !b.empty()) {
    const int64_t low = std::min(a.front(), b.front()), high = std::max(a.back(), b.back());
    const auto range = [](const std::vector<int64_t>& lengths) { return lengths.front() == lengths.back() ? QString::number(lengths.front()) : QStringLiteral("%1–%2").arg(lengths.front()).arg(lengths.back()); };
    m_lengths->setCaption(tr("Lengths"), tr("%1: %2 tokens; %3: %4 tokens").arg(text(calibration.pieces), range(a), text(use.pieces), range(b)));
    m_lengths->setEmptyText(tr("All of both have %1 tokens.").arg(low));
    if (low == high)
      m_lengths->setData({}, {});
    else
      m_lengths->setData({lengthsOf(calibration, low, high, QColor::fromRgba(kCalibration), false), lengthsOf(use, low, high, QColor::fromRgba(kUse), true)}, tr("Tokens of a sample, window, item or document"));
  } else {
    m_lengths->setData({}, {});
  }
  m_missing->setShifts(m_comparison, use.against_first.missing);
  m_surplus->setShifts(m_comparison, use.against_first.surplus);
  m_sharedTitle->setText(use.shared.empty() ? tr("No passage of %1 tokens stands in both").arg(kPassage) : tr("Stands in both: the longest passages"));
  QStringList passages;
  for (const SharedPassage& passage : use.shared) passages << tr("%1 tokens: %2").arg(passage.tokens).arg(text(passage.text).simplified());
  m_shared->setPlainText(passages.join(QStringLiteral("\n\n")));
}

}  // namespace qb::views
