#pragma once

namespace qb::views {

// Lowers the calling thread's priority, and with it that of the compute threads it starts later (they inherit it), so that
// the window keeps answering while every core computes. Does nothing where the system has no such notion.
void yieldToInterface();

}  // namespace qb::views
