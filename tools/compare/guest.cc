// Process 1 of the guest that tools/compare-with-xen boots: loads what is in /modules, prints what a kernel and its
// user space see of the hypervisor, and switches off. With "hold" on the kernel's command line behind "--" it stays
// until it is destroyed, so that the host's side can be looked at. As any other process, in a zone that `bulkhead run`
// made, it only prints. Each fact is a line "@@ SECTION<TAB>KEY<TAB>VALUE"; "@@ end" is the last. What cannot be read
// says why: "<Permission denied>".
#include <cpuid.h>
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <xen/io/xs_wire.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace {

using std::string;

void say(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(1, text.data(), text.size());
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

// Values stay on one line.
string escaped(std::string_view value) {
  string out;
  while (value.ends_with('\n') || value.ends_with('\0')) value.remove_suffix(1);
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    char code[8];
    std::snprintf(code, sizeof code, "\\x%02x", byte);
    out += c == '\n' ? "\\n" : c == '\t' ? "\\t" : byte < 0x20 || byte > 0x7e ? code : string(1, c);
  }
  return out;
}

void fact(std::string_view section, const string& key, std::string_view value) {
  say("@@ " + string{section} + "\t" + escaped(key) + "\t" + escaped(value) + "\n");
}

string why_not() { return string{"<"} + std::strerror(errno) + ">"; }

string text_of(const string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return why_not();
  string out;
  char part[4096];
  ssize_t got;
  while ((got = ::read(fd, part, sizeof part)) > 0 && out.size() < 1 << 20)
    out.append(part, static_cast<std::size_t>(got));
  if (got < 0 && out.empty()) out = why_not();
  ::close(fd);
  return out;
}

std::vector<string> names_in(const string& folder) {
  std::vector<string> names;
  DIR* const dir = ::opendir(folder.c_str());
  if (dir == nullptr) return names;
  while (const dirent* entry = ::readdir(dir))
    if (string name = entry->d_name; name != "." && name != "..") names.push_back(std::move(name));
  ::closedir(dir);
  std::ranges::sort(names);
  return names;
}

// Calls visit(path, stat) for all below `folder` that is no folder; follows no links.
template <class Visit>
void walk(const string& folder, const Visit& visit) {
  for (const string& name : names_in(folder)) {
    const string path = folder + "/" + name;
    struct stat about{};
    if (::lstat(path.c_str(), &about) != 0) continue;
    if (S_ISDIR(about.st_mode))
      walk(path, visit);
    else
      visit(path, about);
  }
}

void tell_files(const char* section, const string& folder) {
  walk(folder, [&](const string& path, const struct stat& about) {
    if (S_ISREG(about.st_mode)) fact(section, path, text_of(path));
  });
}

void tell_lines(const char* section, const string& path) {
  const string text = text_of(path);
  for (std::size_t at = 0, number = 0; at < text.size(); ++number) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    fact(section, std::to_string(number), text.substr(at, end - at));
    at = end + 1;
  }
}

void tell_names(const char* section, const string& folder) {
  for (const string& name : names_in(folder)) fact(section, folder + "/" + name, "");
}

void tell_device_nodes() {
  walk("/dev", [](const string& path, const struct stat& about) {
    const char* const kind = S_ISCHR(about.st_mode) ? "char" : S_ISBLK(about.st_mode) ? "block" : "other";
    fact("dev", path,
         string{kind} + " " + std::to_string(major(about.st_rdev)) + ":" + std::to_string(minor(about.st_rdev)));
  });
}

// Each read of /dev/kmsg is one record, "level,number,microseconds,-;text".
void tell_kernel_log() {
  const int fd = ::open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
  char record[8192];
  ssize_t got;
  for (int number = 0; (got = ::read(fd, record, sizeof record)) > 0 || errno == EPIPE; ++number) {
    if (got <= 0) continue;
    const std::string_view text{record, static_cast<std::size_t>(got)};
    const std::size_t semicolon = text.find(';');
    if (semicolon == string::npos) continue;
    fact("kmsg", std::to_string(number), text.substr(semicolon + 1, text.find('\n') - semicolon - 1));
  }
}

// ---- CPUID, as it is and with the prefix by which a PV guest asks the hypervisor

sigjmp_buf no_such_instruction;
void on_bad_instruction(int) { siglongjmp(no_such_instruction, 1); }

// "EAX EBX ECX EDX". Not inlined: what changes here must not be needed after the jump.
[[gnu::noinline]] string leaf_text(bool prefix, uint32_t leaf, uint32_t subleaf) {
  uint32_t a = leaf, b = 0, c = subleaf, d = 0;
  if (prefix)
    asm volatile("ud2a; .ascii \"xen\"; cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  else
    asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  char text[48];
  std::snprintf(text, sizeof text, "%08x %08x %08x %08x", a, b, c, d);
  return text;
}

[[gnu::noinline]] string guarded_leaf_text(bool prefix, uint32_t leaf, uint32_t subleaf) {
  if (sigsetjmp(no_such_instruction, 1) != 0) return "<invalid opcode>";
  return leaf_text(prefix, leaf, subleaf);
}

void tell_leaf(const char* section, bool prefix, uint32_t leaf, uint32_t subleaf) {
  char key[32];
  std::snprintf(key, sizeof key, "%08x.%x", leaf, subleaf);
  fact(section, key, guarded_leaf_text(prefix, leaf, subleaf));
}

void tell_cpuid(const char* section, bool prefix) {
  struct sigaction action{};
  action.sa_handler = on_bad_instruction;
  ::sigaction(SIGILL, &action, nullptr);
  for (uint32_t leaf = 0x40000000; leaf <= 0x40000005; ++leaf) tell_leaf(section, prefix, leaf, 0);
  for (uint32_t subleaf = 1; subleaf <= 2; ++subleaf) tell_leaf(section, prefix, 0x40000003, subleaf);
  tell_leaf(section, prefix, 0x40000100, 0);
  for (const uint32_t leaf : {0u, 1u, 2u, 4u, 6u, 7u, 0xbu, 0xdu, 0x80000000u, 0x80000001u, 0x80000007u, 0x80000008u})
    tell_leaf(section, prefix, leaf, 0);
}

// ---- xenstore, through the kernel's own door

class Store {
 public:
  Store() : fd_{::open("/dev/xen/xenbus", O_RDWR | O_CLOEXEC)} {}
  bool is_open() const { return fd_ >= 0; }
  // The answer's payload, or "<EERROR>".
  string ask(uint32_t type, const string& path) {
    xsd_sockmsg head{type, ++request_, 0, static_cast<uint32_t>(path.size() + 1)};
    string message{reinterpret_cast<const char*>(&head), sizeof head};
    message.append(path.c_str(), path.size() + 1);
    if (::write(fd_, message.data(), message.size()) != static_cast<ssize_t>(message.size())) return why_not();
    if (!take(&head, sizeof head) || head.len > XENSTORE_PAYLOAD_MAX) return "<broken answer>";
    string payload(head.len, '\0');
    if (!take(payload.data(), payload.size())) return "<broken answer>";
    return head.type == XS_ERROR ? "<" + string{payload.c_str()} + ">" : payload;
  }

 private:
  bool take(void* to, std::size_t bytes) {
    for (auto* at = static_cast<char*>(to); bytes > 0;) {
      const ssize_t got = ::read(fd_, at, bytes);
      if (got <= 0) return false;
      at += got;
      bytes -= static_cast<std::size_t>(got);
    }
    return true;
  }
  int fd_;
  uint32_t request_ = 0;
};

std::vector<string> pieces(const string& text) {  // separated by NUL
  std::vector<string> out;
  for (std::size_t at = 0; at < text.size(); at += out.back().size() + 1) out.emplace_back(text.c_str() + at);
  return out;
}

void tell_node(Store& store, const string& path) {
  string permissions;
  for (const string& one : pieces(store.ask(XS_GET_PERMS, path))) permissions += (permissions.empty() ? "" : ",") + one;
  fact("xenstore", path, store.ask(XS_READ, path) + " (" + permissions + ")");
  const string children = store.ask(XS_DIRECTORY, path);
  if (children.starts_with('<')) return;
  for (const string& name : pieces(children)) tell_node(store, path + (path.ends_with('/') ? "" : "/") + name);
}

void tell_xenstore() {
  Store store;
  if (!store.is_open()) return fact("xenstore", "/dev/xen/xenbus", why_not());
  const string domid = store.ask(XS_READ, "domid");
  const string home = store.ask(XS_GET_DOMAIN_PATH, domid.c_str());
  fact("xenstore", "home", home.c_str());
  fact("xenstore-root", "/", store.ask(XS_DIRECTORY, "/"));
  tell_node(store, home.c_str());
}

// ----

void mount_all() {
  for (const char* const folder : {"/dev", "/proc", "/sys"}) ::mkdir(folder, 0755);
  ::mount("dev", "/dev", "devtmpfs", 0, nullptr);
  ::mount("proc", "/proc", "proc", 0, nullptr);
  ::mount("sys", "/sys", "sysfs", 0, nullptr);
  const int console = ::open("/dev/console", O_RDWR);
  for (int fd = 0; console >= 0 && fd < 3; ++fd) ::dup2(console, fd);
}

// Their names sort in the order of loading. Packed ones (.ko.xz) are unpacked by the kernel.
void load_modules() {
  constexpr int kCompressed = 4;  // MODULE_INIT_COMPRESSED_FILE
  for (const string& name : names_in("/modules")) {
    const int fd = ::open(("/modules/" + name).c_str(), O_RDONLY | O_CLOEXEC);
    const int flags = name.ends_with(".ko") ? 0 : kCompressed;
    if (::syscall(SYS_finit_module, fd, "", flags) != 0) fact("module", name, why_not());
    ::close(fd);
  }
  ::usleep(1'500'000);  // until the devices are connected
}

void tell_everything() {
  tell_files("sysfs", "/sys/hypervisor");
  tell_files("clocksource", "/sys/devices/system/clocksource");
  tell_files("balloon", "/sys/devices/system/xen_memory");
  tell_files("vulnerabilities", "/sys/devices/system/cpu/vulnerabilities");
  tell_files("memmap", "/sys/firmware/memmap");
  tell_names("acpi", "/sys/firmware/acpi/tables");
  for (const char* const bus : {"xen", "xen-backend", "pci", "platform"})
    tell_names("bus", string{"/sys/bus/"} + bus + "/devices");
  for (const char* const kind : {"block", "net", "rtc", "tpm", "ptp"})
    tell_names("class", string{"/sys/class/"} + kind);
  tell_device_nodes();
  tell_lines("interrupts", "/proc/interrupts");
  tell_lines("cpuinfo", "/proc/cpuinfo");
  tell_lines("iomem", "/proc/iomem");
  tell_lines("ioports", "/proc/ioports");
  tell_lines("consoles", "/proc/consoles");
  tell_lines("devices", "/proc/devices");
  fact("cmdline", "cmdline", text_of("/proc/cmdline"));
  tell_cpuid("cpuid", false);
  tell_cpuid("cpuid-prefix", true);
  tell_xenstore();
  tell_kernel_log();
}

}  // namespace

int main(int count, char** arguments) {
  const bool whole_user_space = ::getpid() == 1;
  if (whole_user_space) mount_all();
  ::klogctl(8, nullptr, 1);  // no kernel lines among ours; the log comes as a whole
  if (whole_user_space) load_modules();
  tell_everything();
  say("@@ end\n");
  if (!whole_user_space) return 0;
  ::sync();
  if (count > 1 && std::string_view{arguments[1]} == "hold")
    for (;;) ::pause();
  ::reboot(RB_POWER_OFF);
  for (;;) ::pause();
}
