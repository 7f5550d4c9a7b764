#include "views/jobs/Priority.h"

#ifdef __linux__
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace qb::views {

void yieldToInterface() {
#ifdef __linux__
  // Linux keeps a nice value per thread (POSIX: per process); the id 0 would also mean the calling thread.
  setpriority(PRIO_PROCESS, id_t(syscall(SYS_gettid)), 5);
#endif
}

}  // namespace qb::views
