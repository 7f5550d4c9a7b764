// Reads an importance matrix and writes it again: rewrite_imatrix IN.gguf OUT.gguf. For conformance tests.
#include <iostream>

#include "core/format/imatrix.h"

int main(int argc, char** argv) try {
  if (argc != 3) return 2;
  qb::write_imatrix(argv[2], qb::read_imatrix(argv[1]));
  return 0;
} catch (const std::exception& e) {
  std::cerr << e.what() << '\n';
  return 1;
}
