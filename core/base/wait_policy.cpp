// OpenMP's threads sleep when they wait, in every program that links this library.
//
// By default libgomp's threads look for new work in a loop for many milliseconds before they sleep. Beside other work they
// take the time from the very thread they wait for, and a run takes ten times as long. A short look is worth it: most
// gaps between two parallel loops are shorter than falling asleep and being woken.
//
// libgomp reads its settings in its constructor, before main. So the program starts itself again with them set, once: it does
// nothing where either is set, by a user or by itself. It does so in .preinit_array, which runs after libraries are mapped and
// before their constructors: libtorch's take a quarter of a second.
#ifdef __ELF__
#include <alloca.h>
#include <climits>
#include <cstddef>
#include <unistd.h>

namespace {

// Other OpenMP runtimes know the first only. A look is some 10 to 60 ns, so that 4000 of them are 40 to 240 µs.
constexpr char kPolicy[] = "OMP_WAIT_POLICY=passive", kSpin[] = "GOMP_SPINCOUNT=4000";

// Whether both set the same variable. No library function: with a sanitizer they are not ready yet.
[[gnu::no_sanitize("address", "undefined")]] bool same_variable(const char* a, const char* b) {
  while (*a == *b && *a != '=' && *a != 0) ++a, ++b;
  return *a == '=' && *b == '=';
}

[[gnu::no_sanitize("address", "undefined")]] void start_with_sleeping_threads(int, char** arguments, char** environment) {
  size_t count = 0;
  for (; environment[count]; ++count)
    if (same_variable(environment[count], kPolicy) || same_variable(environment[count], kSpin)) return;
  // The program's own path rather than the link: the system names the process after it.
  char program[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return;
  program[length] = 0;
  auto* changed = static_cast<const char**>(::alloca((count + 3) * sizeof(char*)));
  for (size_t i = 0; i < count; ++i) changed[i] = environment[i];
  changed[count] = kPolicy;
  changed[count + 1] = kSpin;
  changed[count + 2] = nullptr;
  ::execve(program, arguments, const_cast<char**>(changed));  // returns where it is not possible: then as it was
}

}  // namespace

// The linker is told to look for this name (core/CMakeLists.txt): nothing else here is called by anybody.
extern "C" {
[[gnu::used, gnu::section(".preinit_array")]] void (*qbench_wait_policy)(int, char**, char**) = start_with_sleeping_threads;
}
#endif
