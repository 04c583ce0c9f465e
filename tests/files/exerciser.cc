// See README.md. Prints one line for each check that fails, and how many there were; the status says whether all held.
#include "exerciser.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

namespace {

int g_checks = 0, g_failures = 0;

void check(bool good, const char* what, int line) {
  ++g_checks;
  if (good) return;
  if (++g_failures > 20) std::exit(1);  // the first ones say it
  std::printf("line %d: %s (errno %d: %s)\n", line, what, errno, std::strerror(errno));
}
#define CHECK(condition) check((condition), #condition, __LINE__)
#define CHECK_ERROR(call, wanted) check((call) == -1 && errno == (wanted), #call " fails with " #wanted, __LINE__)

int make(const char* path, const char* content, mode_t mode = 0644) {
  const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  CHECK(fd >= 0);
  CHECK(write(fd, content, strlen(content)) == static_cast<ssize_t>(strlen(content)));
  return fd;
}
void put(const char* path, const char* content, mode_t mode = 0644) { close(make(path, content, mode)); }
std::string get(const char* path) {
  std::string out(1 << 16, '\0');
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  const ssize_t size = read(fd, out.data(), out.size());
  close(fd);
  out.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return out;
}
struct stat status_of(const char* path) {
  struct stat status{};
  CHECK(lstat(path, &status) == 0);
  return status;
}

void names() {
  put("one", "1");
  CHECK_ERROR(open("one", O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST);
  CHECK(link("one", "two") == 0);
  CHECK(status_of("one").st_nlink == 2 && status_of("one").st_ino == status_of("two").st_ino);
  CHECK(rename("two", "three") == 0);
  CHECK_ERROR(access("two", F_OK), ENOENT);
  CHECK(get("three") == "1");
  CHECK(mkdir("folder", 0700) == 0);
  CHECK_ERROR(mkdir("folder", 0700), EEXIST);
  put("folder/inside", "x");
  CHECK_ERROR(rmdir("folder"), ENOTEMPTY);
  CHECK_ERROR(unlink("folder"), EISDIR);
  CHECK_ERROR(rmdir("one"), ENOTDIR);
  CHECK_ERROR(rename("folder", "folder/inside/x"), ENOTDIR);
  CHECK(mkdir("folder/sub", 0700) == 0);
  CHECK_ERROR(rename("folder", "folder/sub/x"), EINVAL);
  CHECK_ERROR(rename("one", "folder"), EISDIR);
  CHECK_ERROR(rename("folder", "one"), ENOTDIR);
  CHECK(rename("folder", "moved") == 0 && get("moved/inside") == "x");
  CHECK(symlink("moved/inside", "link") == 0);
  CHECK(get("link") == "x");
  char target[64] = {};
  CHECK(readlink("link", target, sizeof target) == 12 && !strcmp(target, "moved/inside"));
  CHECK(status_of("link").st_size == 12);
  CHECK(symlink("nowhere", "dangling") == 0);
  CHECK_ERROR(open("dangling", O_RDONLY), ENOENT);
  CHECK_ERROR(open("link", O_RDONLY | O_NOFOLLOW), ELOOP);
  CHECK(symlink("loop", "loop") == 0);
  CHECK_ERROR(open("loop", O_RDONLY), ELOOP);
  put("a", "a");
  put("b", "b");
  CHECK(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE) == 0 && get("a") == "b" && get("b") == "a");
  CHECK_ERROR(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE), EEXIST);
  const std::string longest(255, 'n'), too_long(256, 'n');
  put(longest.c_str(), "long");
  CHECK(get(longest.c_str()) == "long");
  CHECK_ERROR(open(too_long.c_str(), O_CREAT | O_WRONLY, 0644), ENAMETOOLONG);
  put("name with \n and \377", "odd");
  CHECK(get("name with \n and \377") == "odd");
  CHECK(mkfifo("pipe", 0600) == 0 && S_ISFIFO(status_of("pipe").st_mode));
  CHECK_ERROR(open("one/x", O_RDONLY), ENOTDIR);
}

void many() {
  CHECK(mkdir("many", 0755) == 0);
  std::set<std::string> wanted;
  for (int i = 0; i < 500; ++i) {
    const std::string name = "file-" + std::to_string(i);
    wanted.insert(name);
    put(("many/" + name).c_str(), "");
  }
  for (int round = 0; round < 2; ++round) {
    std::set<std::string> found;
    DIR* const folder = opendir("many");
    while (const dirent* const entry = readdir(folder)) {
      if (entry->d_name[0] == '.') continue;
      CHECK(found.insert(entry->d_name).second);
      CHECK(entry->d_type == DT_REG);
    }
    closedir(folder);
    CHECK(found == wanted);
    for (int i = round; i < 500; i += 2) {
      const std::string name = "file-" + std::to_string(i);
      wanted.erase(name);
      CHECK(unlink(("many/" + name).c_str()) == 0);
    }
  }
  CHECK(rmdir("many") == 0);
}

void contents() {
  const int file = make("content", "0123456789");
  CHECK(ftruncate(file, 5) == 0 && get("content") == "01234");
  CHECK(ftruncate(file, 8) == 0 && get("content") == std::string("01234\0\0\0", 8));
  CHECK(pwrite(file, "end", 3, 1 << 20) == 3);
  CHECK(status_of("content").st_size == (1 << 20) + 3);
  const off_t hole = lseek(file, 0, SEEK_HOLE), data = lseek(file, 4096 * 4, SEEK_DATA);
  CHECK(hole >= 8 && hole <= (1 << 20) + 3);
  CHECK(data > 4096 * 4 - 1 && data <= 1 << 20);
  CHECK_ERROR(lseek(file, 2 << 20, SEEK_DATA), ENXIO);
  CHECK(fallocate(file, 0, 2 << 20, 4096) == 0 && status_of("content").st_size == (2 << 20) + 4096);
  CHECK(fallocate(file, FALLOC_FL_KEEP_SIZE, 4 << 20, 4096) == 0 && status_of("content").st_size == (2 << 20) + 4096);
  CHECK(fsync(file) == 0 && fdatasync(file) == 0);
  const int append = open("content", O_WRONLY | O_APPEND | O_CLOEXEC);
  CHECK(write(append, "more", 4) == 4 && status_of("content").st_size == (2 << 20) + 4100);
  close(append);
  const int copy = make("copy", "");
  off_t from = 1 << 20, to = 0;
  CHECK(copy_file_range(file, &from, copy, &to, 3, 0) == 3 && get("copy") == "end");
  // A file without a name.
  CHECK(unlink("copy") == 0);
  CHECK(pwrite(copy, "still", 5, 0) == 5);
  char text[8] = {};
  CHECK(pread(copy, text, 5, 0) == 5 && !strcmp(text, "still"));
  struct stat status{};
  CHECK(fstat(copy, &status) == 0 && status.st_nlink == 0);
  close(copy);
  close(file);
  const int truncated = open("content", O_WRONLY | O_TRUNC | O_CLOEXEC);
  CHECK(status_of("content").st_size == 0);
  close(truncated);
  CHECK_ERROR(write(open("content", O_RDONLY | O_CLOEXEC), "x", 1), EBADF);
}

void mappings() {
  constexpr size_t kSize = 3 * 4096 + 100;
  const int file = make("mapped", "");
  CHECK(ftruncate(file, kSize) == 0);
  auto* const map = static_cast<char*>(mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
  CHECK(map != MAP_FAILED);
  memset(map, 'm', kSize);
  CHECK(msync(map, kSize, MS_SYNC) == 0);
  CHECK(get("mapped") == std::string(kSize, 'm'));
  CHECK(pwrite(file, "file", 4, 5000) == 4 && !memcmp(map + 5000, "file", 4));
  map[4999] = '!';
  char text[6] = {};
  CHECK(pread(file, text, 5, 4999) == 5 && !strcmp(text, "!file"));
  // What is written to a mapping of a file opened for appending goes where it belongs.
  const int append = open("mapped", O_RDWR | O_APPEND | O_CLOEXEC);
  auto* const other = static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, append, 0));
  close(file);
  other[0] = 'A';
  CHECK(msync(other, 4096, MS_SYNC) == 0 && status_of("mapped").st_size == static_cast<off_t>(kSize));
  munmap(other, 4096);
  munmap(map, kSize);
  close(append);
  CHECK(get("mapped").substr(0, 2) == "Am");
  auto* const own = static_cast<char*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, open("mapped", O_RDONLY | O_CLOEXEC), 0));
  own[1] = 'P';
  CHECK(get("mapped").substr(0, 2) == "Am");
}

void attributes() {
  put("attributes", "x", 0600);
  CHECK((status_of("attributes").st_mode & 07777) == 0600);
  CHECK(chmod("attributes", 0751) == 0 && (status_of("attributes").st_mode & 07777) == 0751);
  const timespec times[2] = {{1'000'000'000, 123'456'789}, {1'100'000'000, 987'654'321}};
  CHECK(utimensat(AT_FDCWD, "attributes", times, 0) == 0);
  CHECK(status_of("attributes").st_mtim.tv_sec == 1'100'000'000);
  CHECK(status_of("attributes").st_mtim.tv_nsec == 987'654'321);
  const timespec before = status_of("attributes").st_ctim;
  usleep(20'000);
  CHECK(chmod("attributes", 0700) == 0);
  const timespec after = status_of("attributes").st_ctim;
  CHECK(after.tv_sec > before.tv_sec || after.tv_nsec > before.tv_nsec);
  umask(027);
  close(open("masked", O_CREAT | O_WRONLY | O_CLOEXEC, 0666));
  CHECK((status_of("masked").st_mode & 07777) == 0640);
  umask(0);
  struct statvfs space{};
  CHECK(statvfs(".", &space) == 0 && space.f_blocks > 0 && space.f_namemax == 255);
  if (setxattr("attributes", "user.test", "value", 5, XATTR_CREATE) == -1 && errno == EOPNOTSUPP) return;
  char value[16] = {};
  CHECK(getxattr("attributes", "user.test", value, sizeof value) == 5 && !strcmp(value, "value"));
  CHECK_ERROR(setxattr("attributes", "user.test", "v", 1, XATTR_CREATE), EEXIST);
  CHECK_ERROR(setxattr("attributes", "user.other", "v", 1, XATTR_REPLACE), ENODATA);
  CHECK_ERROR(getxattr("attributes", "user.test", value, 2), ERANGE);
  CHECK(listxattr("attributes", value, sizeof value) >= 10);
  CHECK(removexattr("attributes", "user.test") == 0);
  CHECK_ERROR(getxattr("attributes", "user.test", value, sizeof value), ENODATA);
}

// What another process finds: 0, or the errno of `call`.
template <class Call>
int as_user(uid_t uid, Call call) {
  const pid_t child = fork();
  if (child == 0) {
    if (setgid(uid) != 0 || setuid(uid) != 0) _exit(255);
    _exit(call() == -1 ? errno : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

void owners() {
  if (geteuid() != 0) return;
  CHECK(mkdir("public", 01777) == 0);
  CHECK(as_user(1234, [] { return open("public/theirs", O_CREAT | O_WRONLY | O_CLOEXEC, 0600); }) == 0);
  CHECK(status_of("public/theirs").st_uid == 1234 && status_of("public/theirs").st_gid == 1234);
  CHECK(as_user(1234, [] { return mkdir("public/dir", 0700); }) == 0 && status_of("public/dir").st_uid == 1234);
  CHECK(as_user(1234, [] { return symlink("x", "public/link"); }) == 0 && status_of("public/link").st_uid == 1234);
  CHECK(as_user(4321, [] { return open("public/theirs", O_RDONLY | O_CLOEXEC); }) == EACCES);
  CHECK(as_user(4321, [] { return unlink("public/theirs"); }) == EPERM);
  CHECK(as_user(4321, [] { return chmod("public/theirs", 0666); }) == EPERM);
  CHECK(as_user(1234, [] { return chown("public/theirs", 0, 0); }) == EPERM);
  CHECK(chown("public/theirs", 77, 88) == 0 && status_of("public/theirs").st_uid == 77);
  CHECK(lchown("public/link", 5, 6) == 0 && status_of("public/link").st_gid == 6);
  put("setuid", "x");
  CHECK(chmod("setuid", 06777) == 0 && (status_of("setuid").st_mode & 06000) == 06000);
  CHECK(as_user(1234, [] { return static_cast<int>(write(open("setuid", O_WRONLY), "y", 1)); }) == 0);
  CHECK((status_of("setuid").st_mode & 06000) == 0);
  CHECK(mkdir("group", 0755) == 0 && chown("group", 0, 99) == 0 && chmod("group", 02777) == 0);
  CHECK(as_user(1234, [] { return open("group/file", O_CREAT | O_WRONLY | O_CLOEXEC, 0644); }) == 0);
  CHECK(status_of("group/file").st_gid == 99);
}

void locks() {
  const int first = make("locked", "x"), second = open("locked", O_RDWR | O_CLOEXEC);
  CHECK(flock(first, LOCK_EX) == 0);
  CHECK_ERROR(flock(second, LOCK_EX | LOCK_NB), EWOULDBLOCK);
  CHECK(flock(first, LOCK_UN) == 0 && flock(second, LOCK_EX | LOCK_NB) == 0);
  struct flock range{};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_len = 1;
  CHECK(fcntl(first, F_SETLK, &range) == 0);
  const pid_t child = fork();
  if (child == 0) {
    const int own = open("locked", O_RDWR | O_CLOEXEC);
    _exit(fcntl(own, F_SETLK, &range) == -1 && (errno == EAGAIN || errno == EACCES) ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WEXITSTATUS(status) == 0);
  close(first);
  close(second);
}

int posix(const char* folder) {
  const std::string place = std::string{folder} + "/exercise";
  if (std::system(("rm -rf '" + place + "'").c_str()) != 0 || mkdir(place.c_str(), 0755) != 0 ||
      chdir(place.c_str()) != 0) {
    std::perror(place.c_str());
    return 2;
  }
  umask(0);
  names();
  many();
  contents();
  mappings();
  attributes();
  owners();
  locks();
  std::printf("%d checks, %d failures\n", g_checks, g_failures);
  return g_failures == 0 ? 0 : 1;
}

// Ends by a signal with pages of a shared mapping written and not synced.
int mapped(const char* folder) {
  constexpr size_t kSize = 100'000;
  const int file = open((std::string{folder} + "/mapped").c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0 || ftruncate(file, kSize) != 0) return 2;
  void* const map = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (map == MAP_FAILED) return 2;
  memset(map, 'm', kSize);
  return kill(getpid(), SIGKILL);
}

// Who and where a program in a container is.
int show(char** arguments, char** environment) {
  gid_t groups[64];
  const int count = getgroups(64, groups);
  std::printf("user %d group %d groups", static_cast<int>(geteuid()), static_cast<int>(getegid()));
  for (int i = 0; i < count; ++i) std::printf(" %d", static_cast<int>(groups[i]));
  char folder[4096];
  std::printf("\nin %s\n", getcwd(folder, sizeof folder));
  for (; *arguments != nullptr; ++arguments) std::printf("argument %s\n", *arguments);
  for (; *environment != nullptr; ++environment) std::printf("environment %s\n", *environment);
  return 0;
}

// The names below a folder, and what is in the files.
int list(const std::string& folder) {
  std::set<std::string> names;
  DIR* const open_folder = opendir(folder.c_str());
  if (open_folder == nullptr) return 2;
  while (const dirent* const entry = readdir(open_folder))
    if (entry->d_name[0] != '.') names.insert(entry->d_name);
  closedir(open_folder);
  for (const std::string& name : names) {
    const std::string path = folder + "/" + name;
    struct stat status{};
    lstat(path.c_str(), &status);
    std::printf("%s %o %d:%d %s\n", path.c_str(), status.st_mode, static_cast<int>(status.st_uid),
                static_cast<int>(status.st_gid),
                S_ISREG(status.st_mode) ? get(path.c_str()).substr(0, 20).c_str() : "");
    if (S_ISDIR(status.st_mode)) list(path);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv, char** environment) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  if (what == "posix" && argc == 3) return posix(argv[2]);
  if (what == "random" && argc == 5)
    return random_file(argv[2], std::strtoul(argv[3], nullptr, 10), std::atol(argv[4]));
  if (what == "mapped" && argc == 3) return mapped(argv[2]);
  if (what == "show") return show(argv + 2, environment);
  if (what == "list" && argc == 3) return list(argv[2]);
  std::fputs("exerciser posix FOLDER\nexerciser mapped FOLDER\nexerciser random FOLDER SEED STEPS\n", stderr);
  return 2;
}
