/* A program that does nothing, to be built static, or made setuid. */
int main(void) { return 0; }
