/* The recorded deliveries, inside the program: tests/data/github, see the notice there. */
    .section .rodata
    .global demo_deliveries
    .global demo_deliveries_end
demo_deliveries:
    .incbin "github-webhooks.ndjson"
demo_deliveries_end:
    .byte 0
    .section .note.GNU-stack, "", %progbits
