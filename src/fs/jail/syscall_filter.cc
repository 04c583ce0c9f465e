// The system calls for files, and none else but those asked for [linux seccomp_filter]. Others fail as on a kernel that
// does not have them: what a C library of another version asks for beyond these must not cost a zone its files.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <vector>

#include "fs/jail/jail.h"

namespace bulkhead::fs {
namespace {

// The second line is what the C library and threads need.
constexpr long kAllowed[] = {SYS_read,
                             SYS_write,
                             SYS_readv,
                             SYS_writev,
                             SYS_recvfrom,
                             SYS_sendto,
                             SYS_recvmsg,
                             SYS_sendmsg,
                             SYS_poll,
                             SYS_close,
                             SYS_futex,
                             SYS_mmap,
                             SYS_munmap,
                             SYS_mremap,
                             SYS_madvise,
                             SYS_mprotect,
                             SYS_brk,
                             SYS_clone,
                             SYS_clone3,
                             SYS_exit,
                             SYS_exit_group,
                             SYS_rt_sigprocmask,
                             SYS_rt_sigaction,
                             SYS_rt_sigreturn,
                             SYS_set_robust_list,
                             SYS_rseq,
                             SYS_sched_yield,
                             SYS_getpid,
                             SYS_gettid,
                             SYS_clock_gettime,
                             SYS_clock_nanosleep,
                             SYS_restart_syscall,
                             SYS_getrandom,
                             SYS_sched_getaffinity,
                             SYS_openat,
                             SYS_openat2,
                             SYS_statx,
                             SYS_newfstatat,
                             SYS_fstat,
                             SYS_fstatfs,
                             SYS_fcntl,
                             SYS_lseek,
                             SYS_getdents64,
                             SYS_pread64,
                             SYS_pwrite64,
                             SYS_ftruncate,
                             SYS_fallocate,
                             SYS_copy_file_range,
                             SYS_fsync,
                             SYS_fdatasync,
                             SYS_syncfs,
                             SYS_mkdirat,
                             SYS_mknodat,
                             SYS_symlinkat,
                             SYS_readlinkat,
                             SYS_linkat,
                             SYS_unlinkat,
                             SYS_renameat,
                             SYS_renameat2,
                             SYS_chmod,
                             SYS_fchmodat,
                             SYS_fchownat,
                             SYS_utimensat,
                             SYS_setxattr,
                             SYS_getxattr,
                             SYS_listxattr,
                             SYS_removexattr,
                             SYS_setfsuid,
                             SYS_setfsgid,
                             SYS_capget,
                             SYS_capset};

}  // namespace

Result<void> filter_syscalls([[maybe_unused]] std::span<const long> more) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return {};  // their run-time libraries make many more
#else
  std::vector<sock_filter> program = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
  };
  const auto allow = [&](long number) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<u32>(number), 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  };
  for (const long number : kAllowed) allow(number);
  for (const long number : more) allow(number);
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS));
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) return fail_errno("filtering system calls");
  return {};
#endif
}

}  // namespace bulkhead::fs
