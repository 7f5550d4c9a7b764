#include "views/jobs/Priority.h"

#include <algorithm>

#ifdef __linux__
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace qb::views {

void yieldToInterface() {
#ifdef __linux__
  // Linux keeps a nice value per thread (POSIX: per process).
  // Ten steps below the main thread, whose id is the process's: a tenth of its share where both want the same core.
  setpriority(PRIO_PROCESS, id_t(syscall(SYS_gettid)), std::min(19, getpriority(PRIO_PROCESS, id_t(getpid())) + 10));
#endif
}

}  // namespace qb::views
