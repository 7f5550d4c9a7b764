// Benchmark tool: tokenize_speed MODEL TEXT. For every line on standard input encodes the text once and prints
// "seconds tokens". A line "fresh" does so with a tokenizer just loaded (loading not timed), so that no word is cached.
#include <chrono>
#include <iostream>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/text/tokenizer.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: tokenize_speed MODEL TEXT\n";
    return 2;
  }
  try {
    const std::string text = qb::read_text(argv[2]);
    auto tokenizer = qb::Tokenizer::load(argv[1]);
    std::string line;
    while (std::getline(std::cin, line)) {
      if (line == "fresh") tokenizer = qb::Tokenizer::load(argv[1]);
      const auto start = std::chrono::steady_clock::now();
      const auto ids = tokenizer->encode(text, false);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      std::cout << seconds.count() << ' ' << ids.size() << std::endl;
    }
  } catch (const qb::Error& e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
  return 0;
}
