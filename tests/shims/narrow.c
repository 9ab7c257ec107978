/* A program for 32-bit processors, without a C library:
   cc -m32 -static -nostdlib -ffreestanding -fno-pic -fno-stack-protector

   narrow LOG LINES   appends lines to LOG, in turn by write, writev, pwrite64 and pwritev; syncs after each, in turn by fdatasync
                      and fsync, and prints it */

static long call(long number, long a, long b, long c, long d, long e) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
    return result;
}

struct piece {
    const char *base;
    unsigned length;
};

enum { EXIT_GROUP = 252, WRITE = 4, OPEN = 5, LSEEK = 19, FSYNC = 118, WRITEV = 146, FDATASYNC = 148, PWRITE64 = 181, PWRITEV = 334 };

static void end(int status) {
    for (;;)
        call(EXIT_GROUP, status, 0, 0, 0, 0);
}

static unsigned number(const char *text) {
    unsigned value = 0;
    while (*text)
        value = 10 * value + (unsigned)(*text++ - '0');
    return value;
}

__attribute__((used)) void begin(long *stack) {
    char **words = (char **)(stack + 1);
    unsigned lines = number(words[2]);
    /* O_WRONLY | O_CREAT | O_TRUNC */
    long log = call(OPEN, (long)words[1], 01 | 0100 | 01000, 0644, 0, 0), at = 0;
    if (log < 0)
        end(1);
    for (unsigned i = 0; i < lines; i++) {
        char line[] = "00000\n";
        for (unsigned left = i, place = 4; left; left /= 10, place--)
            line[place] = (char)('0' + left % 10);
        struct piece pieces[2] = {{line, 2}, {line + 2, 4}};
        long written = 0;
        /* The calls that name a place leave the position as it is. */
        call(LSEEK, log, at, 0, 0, 0);
        switch (i % 4) {
        case 0:
            written = call(WRITE, log, (long)line, 6, 0, 0);
            break;
        case 1:
            written = call(WRITEV, log, (long)pieces, 2, 0, 0);
            break;
        case 2:
            written = call(PWRITE64, log, (long)line, 6, at, 0);
            break;
        default:
            written = call(PWRITEV, log, (long)pieces, 2, at, 0);
        }
        at += written;
        if (written != 6 || call(i % 2 ? FSYNC : FDATASYNC, log, 0, 0, 0, 0) || call(WRITE, 1, (long)line, 6, 0, 0) != 6)
            end(2);
    }
    end(0);
}

__asm__(".globl _start\n_start: mov %esp, %eax\n push %eax\n call begin\n");
