/* Opens an object with libbpf, as a loader would, and lists what libbpf found in it. */
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <stdarg.h>
#include <stdio.h>

static int warnings;

static int print(enum libbpf_print_level level, const char *format, va_list args)
{
	if (level != LIBBPF_WARN)
		return 0;
	warnings++;
	return vfprintf(stderr, format, args);
}

int main(int argc, char **argv)
{
	struct bpf_object *object;
	struct bpf_program *program;
	struct bpf_map *map;

	libbpf_set_print(print);
	object = bpf_object__open(argc > 1 ? argv[1] : "");
	if (!object)
		return 1;
	bpf_object__for_each_program(program, object)
		printf("program %s in %s, %zu instructions\n", bpf_program__name(program),
		       bpf_program__section_name(program), bpf_program__insn_cnt(program));
	bpf_object__for_each_map(map, object)
		printf("map %s type %d key %u value %u entries %u flags %#x\n", bpf_map__name(map),
		       bpf_map__type(map), bpf_map__key_size(map), bpf_map__value_size(map),
		       bpf_map__max_entries(map), bpf_map__map_flags(map));
	printf("types %s\n", bpf_object__btf(object) ? "yes" : "no");
	bpf_object__close(object);
	return warnings != 0;
}
