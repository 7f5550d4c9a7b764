#pragma once

namespace qb {

// Locks of an open file description, on the whole file: two openings in one process exclude each other too, and the kernel drops
// them when the process goes, however it goes.
int try_lock(int fd);  // 0, or errno: EAGAIN or EACCES when another has it
// false too where the file system does not tell.
bool is_locked(int fd);

}  // namespace qb
