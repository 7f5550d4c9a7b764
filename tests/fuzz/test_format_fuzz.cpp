#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <fmt/format.h>
#include <random>

#include "core/format/format_files.h"

using namespace format_files;

// Thousands of damaged files, the same every time. Whatever they hold, opening and reading gives data or one clear
// InputError; under the asan preset it also touches no byte that is not the file's.
class TestFormatFuzz : public QObject {
  Q_OBJECT
  QTemporaryDir folder_;
  std::mt19937_64 random_{20250607};

  size_t below(size_t n) { return static_cast<size_t>(random_() % n); }

  // One to eight changes, most of them in the header: bits, bytes, words of extreme value, moved and repeated pieces, cuts.
  std::string damaged(std::string bytes, size_t header_end) {
    const size_t changes = 1 + below(8);
    for (size_t i = 0; i < changes && !bytes.empty(); ++i) {
      const size_t at = below(below(8) == 0 ? bytes.size() : std::min(header_end, bytes.size()));
      const size_t length = std::min(1 + below(16), bytes.size() - at);
      switch (below(8)) {
        case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8))); break;
        case 1: bytes[at] = static_cast<char>(below(256)); break;
        case 2: {
          constexpr uint64_t extremes[] = {0, 1, 0x7f, 0xff, 0xffff, 0x7fffffff, 0xffffffff, uint64_t{1} << 62, INT64_MAX, UINT64_MAX, UINT64_MAX - 31};
          const uint64_t value = extremes[below(std::size(extremes))];
          std::memcpy(bytes.data() + at, &value, std::min<size_t>(bytes.size() - at, below(2) ? 8 : 4));
          break;
        }
        case 3: bytes.erase(at, length); break;
        case 4: bytes.insert(at, bytes.substr(below(bytes.size() - length + 1), length)); break;
        case 5: bytes.insert(at, std::string(1, "{}[]\",:09-e\\ "[below(13)])); break;
        case 6: bytes.replace(at, 1, std::string(1, "{}[]\",:09-e\\ "[below(13)])); break;
        default:
          if (below(4) == 0) bytes.resize(below(bytes.size()));
      }
    }
    return bytes;
  }

  void run(const std::string& name, const FileBytes& good, int cases, const std::filesystem::path& opened = {}) {
    const auto file = std::filesystem::path(folder_.path().toStdString()) / name;
    const auto target = opened.empty() ? file : opened;
    int read = 0, refused = 0;
    for (int i = 0; i < cases; ++i) {
      const std::string bytes = damaged(good.bytes, good.header_end);
      write_file(file, bytes);
      const auto message = error_of(target);
      QVERIFY2(message.empty() || message.size() < 1000, fmt::format("case {}: {}", i, message).c_str());
      QVERIFY2(message.empty() || message.find(folder_.path().toStdString()) == 0, fmt::format("case {}: {}", i, message).c_str());
      ++(message.empty() ? read : refused);
    }
    QVERIFY2(read > cases / 200 && refused > cases / 4, fmt::format("{} read, {} refused: the changes test too little", read, refused).c_str());
  }

 private Q_SLOTS:
  void safetensors() { run("model.safetensors", sample_safetensors(), 4000); }
  void gguf() { run("model.gguf", gguf_file(sample_tensors()), 4000); }
  void gguf_without_padding() { run("model.gguf", gguf_file(sample_tensors(), 2, 1), 2000); }

  void torch_archive() { run("pytorch_model.bin", sample_torch(), 6000); }

  void index() {
    const std::filesystem::path folder = folder_.path().toStdString() + "/sharded";
    std::filesystem::create_directories(folder);
    for (std::string tensor : {"x", "y"})
      write_file(folder / (tensor + ".safetensors"),
                 safetensors_file(fmt::format(R"({{"{}":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}}})", tensor), 4).bytes);
    FileBytes good;
    good.raw(R"({"metadata":{"total_size":8,"notes":["a",{"b":null}]},"weight_map":{"y":"y.safetensors","x":"x.safetensors"}})", "index");
    good.header_end = good.bytes.size();
    run("sharded/model.safetensors.index.json", good, 2000, folder);
  }
};

QTEST_GUILESS_MAIN(TestFormatFuzz)
#include "test_format_fuzz.moc"
