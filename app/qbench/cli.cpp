#include "cli.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "core/base/error.h"
#include "core/base/knob.h"
#include "core/engine/compute_threads.h"
#include "core/engine/device.h"

namespace cli {
namespace {

int terminal_width(int fd) {
  winsize size{};
  return ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// Displayed columns of UTF-8 text: continuation bytes take none.
size_t width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string cut(const std::string& text, size_t columns) {
  if (width(text) <= columns) return text;
  std::string out;
  size_t used = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80 && ++used > columns - 1) break;
    out += text[i];
  }
  return out + "…";
}

std::atomic<bool> stoppable = false;  // somebody looks at the token

std::stop_source& interrupts() {
  static std::stop_source source;
  return source;
}

}  // namespace

ExitCode exit_code(const qb::Error& error) { return exit_code(error.kind()); }

ExitCode exit_code(qb::ErrorKind kind) {
  switch (kind) {
    case qb::ErrorKind::recipe: return recipe;
    case qb::ErrorKind::input: return input;
    case qb::ErrorKind::resource: return resource;
    default: return failure;
  }
}

void prepare_compute(const Options& options) {
  qb::initialise_compute(options.threads);
  if (const int threads = qb::compute_threads(); options.threads > threads)
    std::cerr << "qbench: --threads " << options.threads << ": this process may use " << threads << (threads == 1 ? " core" : " cores") << ", and computes with as many threads\n";
}

int guarded(const Action& action) try {
  return action();
} catch (const qb::Cancelled&) {
  std::cerr << "qbench: cancelled\n";
  return cancelled;
} catch (const qb::Error& e) {
  std::cerr << "qbench: " << e.what() << '\n';
  return exit_code(e);
} catch (const std::bad_alloc&) {
  std::cerr << "qbench: out of memory\n";
  return resource;
} catch (const std::exception& e) {
  const std::string what = e.what();  // torch's errors carry a stack trace after their first line
  std::cerr << "qbench: " << what.substr(0, what.find('\n')) << '\n';
  return failure;
}

void watch_interrupts() {
  // A signal handler may not take locks, so a thread waits for the signal; threads made later inherit the blocked mask.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::thread([set] {
    int signal = 0;
    for (int count = 0; sigwait(&set, &signal) == 0; ++count) {
      if (count > 0 || !stoppable) std::_Exit(cancelled);
      interrupts().request_stop();
    }
  }).detach();
}

std::stop_token interrupt_token() {
  stoppable = true;
  return interrupts().get_token();
}

std::string bytes_text(double bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (bytes >= 1000 && unit < 4) {
    bytes /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes, unit == 0 || bytes >= 100 ? 0 : bytes >= 10 ? 1 : 2, units[unit]);
}

std::string seconds_text(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string count_text(double count) {
  if (count >= 1e9) return fmt::format("{:.2f} B", count / 1e9);
  if (count >= 1e6) return fmt::format("{:.1f} M", count / 1e6);
  if (count >= 1e3) return fmt::format("{:.1f} k", count / 1e3);
  return fmt::format("{:.0f}", count);
}

void add_bos_option(CLI::App& command, std::string& bos) {
  command.add_option("--bos", bos, "Where the beginning-of-sequence token stands: tokenizer (as the tokenizer puts it), every_window or none (default: as the family is evaluated)")
      ->check(CLI::IsMember({"tokenizer", "every_window", "none"}));
}

void print_notes(const std::vector<std::string>& notes) {
  for (const std::string& note : notes) std::cerr << "qbench: note: " << note << '\n';
}

bool colours() {
  const char *no = std::getenv("NO_COLOR"), *term = std::getenv("TERM");
  return ::isatty(STDOUT_FILENO) && !(no && *no) && !(term && std::string_view(term) == "dumb");
}
std::string bold(const std::string& text) { return colours() ? "\033[1m" + text + "\033[0m" : text; }

void print_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows, const std::vector<bool>& texts) {
  std::vector<size_t> widths(header.size());
  for (size_t c = 0; c < header.size(); ++c) {
    widths[c] = width(header[c]);
    for (const auto& row : rows) widths[c] = std::max(widths[c], width(row[c]));
  }
  size_t total = 0;
  for (size_t w : widths) total += w + 2;
  if (const auto room = static_cast<size_t>(terminal_width(STDOUT_FILENO)); ::isatty(STDOUT_FILENO) && total > room && widths[0] > 12)
    widths[0] = std::max<size_t>(12, widths[0] - std::min(widths[0] - 12, total - room));
  auto print = [&](const std::vector<std::string>& row, bool head) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string cell = c == 0 ? cut(row[c], widths[0]) : row[c];
      const std::string space(widths[c] - std::min(widths[c], width(cell)), ' ');
      line += c == 0 ? cell + space : c < texts.size() && texts[c] ? "  " + cell + space : "  " + space + cell;
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    std::cout << (head ? bold(line) : line) << '\n';
  };
  print(header, true);
  for (const auto& row : rows) print(row, false);
}

ProgressBar::ProgressBar(std::string title) : title_(std::move(title)), terminal_(::isatty(STDERR_FILENO) != 0) {}
ProgressBar::~ProgressBar() { clear(); }

void ProgressBar::clear() {
  if (drawn_) std::cerr << "\r\033[K" << std::flush;
  drawn_ = false;
}

void ProgressBar::show(const qb::Progress& p) {
  std::string what = p.phase;
  if (!p.stage.empty()) what += " " + p.stage;
  if (p.block >= 0) what += fmt::format(", block {}/{}", p.block + 1, p.blocks);
  const std::string eta = p.eta_s >= 0 ? ", " + seconds_text(p.eta_s) + " left" : "";
  if (!terminal_) {
    const int decile = static_cast<int>(p.fraction * 10);
    if (decile == decile_) return;
    decile_ = decile;
    std::cerr << fmt::format("{}: {:3.0f} %, {}{}\n", title_, p.fraction * 100, what, eta) << std::flush;
    return;
  }
  // Redrawn at most twenty times a second.
  if (drawn_ && p.elapsed_s - last_ < 0.05 && p.fraction < 1) return;
  last_ = p.elapsed_s;
  const int filled = static_cast<int>(std::clamp(p.fraction, 0.0, 1.0) * 24);
  std::string bar;
  for (int i = 0; i < 24; ++i) bar += i < filled ? "█" : "░";
  const std::string line = fmt::format("{} {} {:3.0f} %  {}{}, {}", title_, bar, p.fraction * 100, what, eta, bytes_text(static_cast<double>(p.rss_bytes)));
  std::cerr << "\r\033[K" << cut(line, static_cast<size_t>(terminal_width(STDERR_FILENO)) - 1) << std::flush;
  drawn_ = true;
}

nlohmann::json knobs_json(const std::vector<qb::KnobInfo>& knobs) {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& k : knobs)
    list.push_back({{"name", k.name}, {"title", k.title}, {"default", qb::to_text(k.default_value)}, {"range", qb::range_text(k)}, {"unit", k.unit}, {"help", k.help}, {"source", k.source}});
  return list;
}

void print_knobs(const std::vector<qb::KnobInfo>& knobs) {
  for (const auto& k : knobs) std::cout << fmt::format("    {} = {}  ({})\n        {}: {}\n", k.name, qb::to_text(k.default_value), qb::range_text(k), k.title, k.help);
}

nlohmann::json number(double value) {
  if (std::isnan(value)) return nullptr;
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

}  // namespace cli
