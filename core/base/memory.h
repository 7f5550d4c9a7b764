#pragma once

namespace qb {

// Gives freed memory back to the system. Tensors of a block come and go, and what lives on between them keeps the
// allocator from doing so itself: without this, resident memory grows with the number of blocks. Costs milliseconds.
void release_freed_memory();

}  // namespace qb
