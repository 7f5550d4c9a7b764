#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace qb {

// The text of a file's bytes as UTF-8: a byte-order mark is dropped, UTF-16 (either order, with its mark) decoded.
// Throws InputError naming the file for bytes that are no text: of which kind where that can be told, or the place of the
// first byte that is not UTF-8.
std::string decode_text(std::string_view bytes, const std::filesystem::path& path);

}  // namespace qb
