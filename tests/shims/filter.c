// Becomes another program under a system call filter that kills the process for some calls; those with a `-` in front
// fail with EPERM.
//
//   filter [-]CALL[,[-]CALL…] PROGRAM…
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
    const char *name;
    int number;
} known[] = {
    {"bpf", SYS_bpf},
    {"close_range", SYS_close_range},
    {"fdatasync", SYS_fdatasync},
    {"kcmp", SYS_kcmp},
    {"pidfd_getfd", SYS_pidfd_getfd},
    {"pidfd_open", SYS_pidfd_open},
    {"prctl", SYS_prctl},
    {"rt_sigpending", SYS_rt_sigpending},
    {"setsid", SYS_setsid},
};

int main(int count, char **words) {
    struct sock_filter code[64];
    int n = 0;
    if (count < 3) return 2;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (char *name = strtok(words[1], ","); name; name = strtok(NULL, ",")) {
        int fails = *name == '-';
        name += fails;
        size_t i = 0;
        while (i < sizeof known / sizeof *known && strcmp(known[i].name, name)) i++;
        if (i == sizeof known / sizeof *known) return 3;
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, known[i].number, 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, fails ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_KILL_PROCESS);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {n, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return 4;
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) return 5;
    execvp(words[2], words + 2);
    return 6;
}
