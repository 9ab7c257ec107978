// Starts `durac lsp` for policy files.
const { workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

exports.activate = () => {
    const command = workspace.getConfiguration("durac").get("path");
    client = new LanguageClient("durac", { command, args: ["lsp"] }, { documentSelector: [{ language: "durac" }] });
    return client.start();
};

exports.deactivate = () => client && client.stop();
