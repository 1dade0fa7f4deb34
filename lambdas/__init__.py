"""AWS Lambda functions, one package each; boto3 and Powertools only. They import nothing of the other packages."""
