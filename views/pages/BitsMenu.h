#pragma once
#include <functional>

#include "views/models/Selection.h"

class QMenu;

namespace qb::views {

// "Give this linear … bits", wherever a linear can be pointed at. bits 0: it stays float.
void addBitsMenu(QMenu* menu, const LinearKey& linear, const std::function<void(const LinearKey& linear, int bits)>& give);

}  // namespace qb::views
